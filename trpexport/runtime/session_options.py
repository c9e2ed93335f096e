"""How ONNX Runtime is to run a network: its session options, and what it may say meanwhile."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trpexport.errors import TrpexportError
from trpexport.runtime.providers import CPU, Provider

GRAPH_OPTIMIZATIONS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
# What may make a network faster without changing what it computes, each tried alone; the value
# None is ONNX Runtime's own choice. "extended" is "all" without blocked layouts of channels.
VARIATIONS: tuple[Mapping[str, str | bool], ...] = (
    {"graph_optimization": "extended"},
    {"allow_spinning": False},
    {"memory_pattern": False},
    {"prepacking": False},
    {"arena": False},
)
# Options that may be varied, in words.
VARIED = {
    "graph_optimization": "graph optimization",
    "allow_spinning": "spinning",
    "memory_pattern": "memory pattern",
    "prepacking": "prepacking",
    "arena": "arena",
}
_MOST_THREADS = 4096  # each is one of the operating system's
_SILENT = 4  # ONNX Runtime's "fatal": its errors reach us as exceptions, so nothing is lost
_WARNING = 2  # ONNX Runtime's own default


def make_session_options(
    onnxruntime: Any,
    *,
    threads: int | None,
    graph_optimization: str,
    allow_spinning: bool | None,
    arena: bool,
    memory_pattern: bool = True,
    prepacking: bool = True,
) -> Any:
    """Return ``SessionOptions``; the arguments are those of :func:`open_session`.

    Raises:
        TrpexportError: ``threads`` is below 1 or senselessly large, or ``graph_optimization`` is
            unknown.
    """
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise TrpexportError(f"can't run on {threads} threads: choose 1 to {_MOST_THREADS}")
    if graph_optimization not in GRAPH_OPTIMIZATIONS:
        raise TrpexportError(
            f"unknown graph optimization {graph_optimization!r}: "
            f"choose from {', '.join(GRAPH_OPTIMIZATIONS)}"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = memory_pattern
    if not prepacking:
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, GRAPH_OPTIMIZATIONS[graph_optimization]
    )
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if allow_spinning is not None:
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if allow_spinning else "0"
        )
    return options


def recommended(
    advice: Mapping[str, Any] | None, provider: str, threads: int, asked: Collection[str] = ()
) -> dict[str, Any]:
    """Return what a bundle recommends of a session, as arguments of :func:`open_session`.

    Nothing where it was measured with another provider or another number of threads.

    Args:
        advice: a provider, a number of threads, and the options that were measured with these;
            None for none.
        provider: what the session is for.
        threads: likewise.
        asked: names of options that somebody asked for, which go before.
    """
    if advice is None or (advice["provider"], advice["threads"]) != (provider, threads):
        return {}
    # Nothing else: a forged bundle has no say in what is opened, or written where.
    options: Mapping[str, Any] = advice["options"]
    return {name: options[name] for name in options if name in VARIED and name not in asked}


def told(options: Mapping[str, str | bool]) -> str:
    """Return options of a session in words, as in ``graph optimization extended, arena off``."""
    said = {True: "on", False: "off"}
    return ", ".join(
        f"{VARIED[name]} {said[value] if isinstance(value, bool) else value}"
        for name, value in options.items()
    )


def record(options: Any, profile_prefix: Path | None, optimized_path: Path | None) -> None:
    """Let a session write its profile, its optimized graph, or both.

    Args:
        options: the ``SessionOptions`` to change.
        profile_prefix: how the path of the trace is to begin.
        optimized_path: where the graph goes; its large weights go to a second file beside it, so
            that a network above 2 GB can be written as well.
    """
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{optimized_path.name}.data"
        )


@contextlib.contextmanager
def quiet(onnxruntime: Any, provider: Provider) -> Iterator[None]:
    """Keep what a provider logs while it loads off the terminal; its failures are raised."""
    if provider.ort_name == CPU:
        yield
        return
    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        if provider.device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
                onnxruntime.preload_dlls()
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
