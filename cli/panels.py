"""In which group of a help page an option stands: by its name, which means one thing everywhere."""

from __future__ import annotations

COMMANDS = {
    "Make networks smaller": (
        "inspect",
        "sensitivity",
        "decompose",
        "tune",
        "sweep",
        "quantize",
        "export",
    ),
    "Train": ("train", "finetune"),
    "Check and measure": (
        "verify",
        "flops",
        "eval",
        "gate",
        "bench",
        "profile",
        "compare",
        "report",
    ),
    "Set up": ("doctor", "arm-setup", "emulate"),
}
"""Groups of commands, in the order in which they are shown."""

OPTIONS = {
    "Common options": (
        *(
            "scheme",
            "schemes",
            "criterion",
            "target_macs",
            "targets",
            "min_speedup",
            "max_latency",
            "target_error",
        ),
        *("max_drop", "calib", "candidate", "baseline", "data", "recipe", "trp", "provider"),
        *(
            "device",
            "threads",
            "cpu",
            "precision",
            "precisions",
            "is_benched",
            "inputs",
            "out",
            "save",
            "force",
        ),
    ),
    "Limits": (
        *("target_params", "max_error", "max_top5_drop", "min_agreement", "max_output_error"),
        *("min_macs_ratio", "max_parameters", "max_file_size", "min_efficiency", "confident"),
        *("tolerance", "compare_to", "against"),
    ),
    "Ranks and layers": (
        *("include", "exclude", "stride_1_only", "rank_multiple", "plan", "keep_expensive"),
        *("pareto", "ratios", "refine", "refine_images", "add_baseline"),
    ),
    "Low rank in training": ("trp_energy", "trp_period", "nuclear_weight"),
    "Training": (
        *(
            "epochs",
            "lr",
            "weight_decay",
            "teacher",
            "temperature",
            "teacher_weight",
            "loss",
            "init",
        ),
        *("no_augment", "restart", "save_seconds", "tensorboard", "bf16"),
        *("compile_network", "cuda_graphs", "sync_bn", "workers"),
    ),
    "Images and metrics": (
        *("images", "data_images", "split", "mean", "std", "size", "resize", "data_preprocessing"),
        *("metric", "metric_lower_is_better", "output", "confusion"),
    ),
    "The network": ("arch", "model", "expect", "input_shape", "unsafe_pickle"),
    "The ONNX file": (
        *("opset", "dynamic_batch", "dynamic", "legacy_exporter", "simplify", "keep_norms"),
        *("target_ort", "check", "verify_seconds"),
    ),
    "Measuring": (
        *("batch", "host", "python", "min_time", "max_time", "min_runs", "warmup_seconds"),
        *("provider_option", "graph_optimization", "allow_spinning", "no_memory"),
        *("allow_other_machine", "show_table", "jobs", "ray", "device_label"),
    ),
    "Output and settings": (
        *(
            "is_dry",
            "formats",
            "plot",
            "beside",
            "report",
            "junit",
            "history",
            "as_json",
            "as_csv",
            "seed",
            "cache",
            "config",
            "quiet",
            "verbose",
        ),
        *("log_file", "version", "install_completion", "show_completion", "help"),
    ),
}
"""Groups of options by parameter, in the order in which they are shown, the common ones first."""

_PANELS = {name: panel for panel, names in OPTIONS.items() for name in names}
_COMMAND_PANELS = {name: panel for panel, names in COMMANDS.items() for name in names}


def panel_of(parameter: str) -> str | None:
    """Return the group of an option; None for one that has none yet."""
    return _PANELS.get(parameter)


def panel_of_command(name: str) -> str | None:
    """Return the group of a command; None for one that has none yet."""
    return _COMMAND_PANELS.get(name)
