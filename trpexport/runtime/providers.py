"""ONNX Runtime's execution providers: who brings them, and whether they are really there.

ONNX Runtime falls back to the CPU in silence (microsoft/onnxruntime#17801, #23372): where the
provider is not built in, where its libraries do not load, where there is no device, and where an
option names a wrong one. Each is an error here.
"""

from __future__ import annotations

import importlib
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trpexport.errors import MissingDependencyError, ModelError, TrpexportError
from trpexport.registry import Registry
from trpexport.runtime.load_failures import plain_text

Options = Mapping[str, str]
NO_OPTIONS: Options = MappingProxyType({})
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    Attributes:
        name: what users call it.
        ort_name: what ONNX Runtime calls it.
        install: the command, or the way, that brings it.
        plugin: the module that can add it to a plain onnxruntime; None if only a build of
            onnxruntime of its own has it.
        fallbacks: ONNX Runtime's names of providers that take the nodes which it can't run, before
            the CPU does.
        device: where inputs and outputs are bound, so that copies from and to the host are not
            measured; None if it works in the host's memory.
        threads_option: its option for the number of threads, where it has a thread pool of its
            own.
        environment: variables under which its calls wait for what they started, so that a profile
            tells what a node takes; they count where a process has not used it yet.
        switches: the options of a provider that takes no others, each 0 or 1; they are session
            configuration entries. None if ONNX Runtime judges the options.
        architectures: machines it runs on, as Python names them; all if empty.
    """

    name: str
    ort_name: str
    install: str
    plugin: str | None = None
    fallbacks: tuple[str, ...] = ()
    device: str | None = None
    threads_option: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: NO_OPTIONS)
    switches: tuple[str, ...] | None = None
    architectures: tuple[str, ...] = ()


PROVIDERS: Registry[Provider] = Registry("provider")


def _register(name: str, ort_name: str, install: str, **facts: Any) -> None:
    PROVIDERS.register(name, Provider(name, ort_name, install, **facts))


# https://docs.nvidia.com/cuda/cuda-c-programming-guide: a launch returns when its kernel is done.
_WAITING = {"CUDA_LAUNCH_BLOCKING": "1"}
_INSTEAD = "instead of the package onnxruntime"
_register("cpu", CPU, "pip install onnxruntime", switches=())
_register(
    "arm",
    CPU,
    "pip install onnxruntime",
    switches=("mlas.disable_kleidiai", "mlas.enable_gemm_fastmath_arm64_bfloat16"),
    architectures=("aarch64", "arm64"),
)
_register(
    "cuda",
    "CUDAExecutionProvider",
    f'pip install "onnxruntime-gpu[cuda,cudnn]" {_INSTEAD}, on a machine with an NVIDIA GPU',
    device="cuda",
    environment=_WAITING,
)
_register(
    "tensorrt",
    "TensorrtExecutionProvider",
    f'pip install "onnxruntime-gpu[cuda,cudnn]" "tensorrt<11" {_INSTEAD}, with the directory of '
    "libnvinfer.so.10 in LD_LIBRARY_PATH, on a machine with an NVIDIA GPU",
    fallbacks=("CUDAExecutionProvider",),
    device="cuda",
    environment=_WAITING,
)
_register(
    "xnnpack",
    "XnnpackExecutionProvider",
    "build onnxruntime from source with --use_xnnpack: no package on PyPI has it",
    threads_option="intra_op_num_threads",
)
_register(
    "coreml",
    "CoreMLExecutionProvider",
    "pip install onnxruntime on macOS, whose package has it",
)
_register(
    "qnn",
    "QNNExecutionProvider",
    "pip install onnxruntime-qnn beside onnxruntime, on a device with a Qualcomm NPU",
    plugin="onnxruntime_qnn",
)
_register(
    "openvino",
    "OpenVINOExecutionProvider",
    f"pip install onnxruntime-openvino {_INSTEAD}, or onnxruntime-ep-openvino beside it for "
    "Intel's processors",
    plugin="onnxruntime_ep_openvino",
    threads_option="num_of_threads",
)
_register(
    "acl",
    "ACLExecutionProvider",
    "build onnxruntime from source with --use_acl on an aarch64 machine: no package on PyPI has it",
    architectures=("aarch64", "arm64"),
)


def parse_provider_options(texts: Iterable[str]) -> dict[str, str]:
    """Return the options that were typed as ``key=value``.

    Raises:
        TrpexportError: one has no ``=`` or no key, or a key is given twice.
    """
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise TrpexportError(f"can't use the provider option {text!r}: give it as key=value")
        if key in options:
            raise TrpexportError(f"the provider option {key} is given twice: give it once")
        options[key] = value
    return options


def find_provider(name: str, *, architecture: str | None = None) -> Provider:
    """Return a provider that can run on this kind of machine.

    Args:
        name: what users call it.
        architecture: the machine's, as Python names it; this machine's where it is None.

    Raises:
        TrpexportError: there is no such provider, or it does not run on this kind of machine.
    """
    provider = PROVIDERS[name]
    architecture = architecture or platform.machine()
    if not provider.architectures or architecture in provider.architectures:
        return provider
    if provider.name == "arm":
        raise TrpexportError(
            f"the provider arm measures on ARM, and this machine is {architecture}: run on an "
            "aarch64 machine, name one as a host, as in user@device, or emulate a CPU, as in "
            "cortex-a72, to check outputs and count instructions (after trpexport arm-setup)",
            parameters=("host", "emulate"),
        )
    raise TrpexportError(
        f"the provider {name} does not run on {architecture}: {provider.install}, or name such a "
        "device as a host, as in user@device",
        parameters=("host",),
    )


def check_options(provider: Provider, options: Options) -> None:
    """Refuse options where this can be told before a network is opened.

    Raises:
        TrpexportError: the provider does not have an option, or it is not 0 or 1.
    """
    if provider.switches is None:
        return
    for key, value in options.items():
        if key not in provider.switches:
            choice = (
                f"choose from {', '.join(provider.switches)}"
                if provider.switches
                else "it has none"
            )
            raise TrpexportError(f"the provider {provider.name} has no option {key}: {choice}")
        if value not in ("0", "1"):
            raise TrpexportError(f"the provider option {key} is 0 or 1, not {value!r}")


def configure(
    onnxruntime: Any,
    options: Any,
    provider: Provider,
    provider_options: Options,
    threads: int | None,
) -> list[Any] | None:
    """Put a provider into session options, and return the ``providers`` to open the session with.

    Args:
        onnxruntime: the package.
        options: the ``SessionOptions`` to change.
        provider: the provider.
        provider_options: its options.
        threads: for a thread pool of its own; None leaves their number to it.

    Raises:
        MissingDependencyError: this onnxruntime does not have the provider.
        ModelError: the provider's plug-in finds no device.
    """
    if provider.switches is not None:
        for key, value in provider_options.items():
            options.add_session_config_entry(key, value)
        return [provider.ort_name]
    # A plug-in that is loaded is among the available ones too, and is ignored if named like those.
    devices = _plugin_devices(onnxruntime, provider)
    if devices:
        options.add_provider_for_devices(devices[:1], dict(provider_options))
        return None
    if provider.ort_name in onnxruntime.get_available_providers():
        return [
            (provider.ort_name, _with_threads(provider, provider_options, threads)),
            *provider.fallbacks,
        ]
    if devices is None:
        raise MissingDependencyError(
            f"onnxruntime {onnxruntime.__version__} has no {provider.ort_name}: {provider.install}"
        )
    raise ModelError(
        f"{provider.ort_name} finds no device on this machine that it can use: choose another "
        "provider, or name such a machine as a host, as in user@device",
        parameters=("provider", "host"),
    )


def _with_threads(provider: Provider, options: Options, threads: int | None) -> dict[str, str]:
    if provider.threads_option is None or threads is None:
        return dict(options)
    return {provider.threads_option: str(threads), **options}


def _plugin_devices(onnxruntime: Any, provider: Provider) -> list[Any] | None:
    """Return the devices of a provider's plug-in, the NPU first, then the GPU; None without it."""
    if provider.plugin is None or not hasattr(onnxruntime, "get_ep_devices"):
        return None
    try:
        plugin = importlib.import_module(provider.plugin)
    except ImportError:
        return None
    try:
        onnxruntime.register_execution_provider_library(
            provider.ort_name, plugin.get_library_path()
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        if "already registered" not in str(error):
            raise MissingDependencyError(
                f"{provider.plugin} does not load ({plain_text(error)}): {provider.install}"
            ) from error
    order = ("NPU", "GPU", "CPU")
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == provider.ort_name]
    return sorted(devices, key=lambda device: order.index(device.device.type.name))


def node_placement(session: Any) -> dict[str, int] | None:
    """Return the number of nodes on each provider, by ONNX Runtime's name; None before 1.24.

    They are counted when ONNX Runtime places them: simplified, but not yet fused.

    Args:
        session: an ``InferenceSession`` that was told to record it.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return dict(nodes)


def check_placement(
    provider: Provider,
    options: Options,
    active: Sequence[str],
    placement: Mapping[str, int] | None,
    label: str,
) -> None:
    """Refuse a session that would run on other providers alone than the one asked for.

    To be among the session's providers is not enough: OpenVINO with a device that does not exist
    and QNN with a library that does not exist are, and leave every node to the CPU.

    Args:
        provider: the one that was asked for.
        options: the options that were given with it.
        active: the session's providers, the preferred first.
        placement: see :func:`node_placement`.
        label: what the network is called.

    Raises:
        ModelError: the provider did not start, or runs no node.
    """
    if active[0] != provider.ort_name:
        raise ModelError(
            f"{provider.ort_name} does not start here (its libraries or its device are missing), "
            f"{label} would run on {active[0]}: {provider.install}"
        )
    if placement and provider.ort_name not in placement:
        given = f" with {_option_text(options)}" if options else ""
        raise ModelError(
            f"{provider.ort_name}{given} runs no node of {label}, {' and '.join(placement)} would "
            "run them all: choose other options or another provider"
        )


def refused_options(provider: Provider, options: Options, error: Exception) -> ModelError:
    """Return the error for options that ONNX Runtime has refused."""
    return ModelError(
        f"the provider {provider.name} refuses {_option_text(options)}: {plain_text(error)}"
    )


def _option_text(options: Options) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())
