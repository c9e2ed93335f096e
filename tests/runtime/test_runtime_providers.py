from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from trpexport.errors import MissingDependencyError, ModelError, TrpexportError
from trpexport.runtime.providers import (
    PROVIDERS,
    check_options,
    find_provider,
    parse_provider_options,
)
from trpexport.runtime.session import open_session

WriteOnnx = Callable[..., Path]
CPU = "CPUExecutionProvider"


class FakeOnnxruntime(ModuleType):
    """The real package, with a say in which providers it has and what a session makes of them."""

    def __init__(
        self, available: list[str], active: list[str], placement: dict[str, int] | None = None
    ) -> None:
        super().__init__("onnxruntime")
        self.opened_with: list[Any] = []
        self.devices: list[Any] = []
        self.severities: list[int] = []
        self.available = available
        self.active = active
        self.placement = placement

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return self.available

    def set_default_logger_severity(self, severity: int) -> None:
        self.severities.append(severity)

    def get_ep_devices(self) -> list[Any]:
        return self.devices

    def InferenceSession(  # noqa: N802 - the package's name
        self, content: Any, options: Any, providers: Any, enable_fallback: int
    ) -> Any:
        assert enable_fallback == 0
        self.opened_with = providers
        real = onnxruntime.InferenceSession(content, options, [CPU])
        placed = real.get_provider_graph_assignment_info()
        if self.placement is not None:
            placed = [
                SimpleNamespace(ep_name=name, get_nodes=lambda n=count: [None] * n)
                for name, count in self.placement.items()
            ]
        return SimpleNamespace(
            get_inputs=real.get_inputs,
            get_outputs=real.get_outputs,
            get_modelmeta=real.get_modelmeta,
            get_providers=lambda: self.active,
            get_provider_graph_assignment_info=lambda: placed,
            run=real.run,
        )


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeOnnxruntime]:
    def fake(*args: Any, **kwargs: Any) -> FakeOnnxruntime:
        package = FakeOnnxruntime(*args, **kwargs)
        monkeypatch.setitem(sys.modules, "onnxruntime", package)
        return package

    return fake


def on(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: architecture)


# --- which there are ------------------------------------------------------------------------


def test_the_providers() -> None:
    assert list(PROVIDERS) == [
        *("cpu", "arm", "cuda", "tensorrt", "xnnpack", "coreml", "qnn", "openvino", "acl"),
    ]
    known = onnxruntime.get_all_providers()
    for name, provider in PROVIDERS.items():
        assert provider.name == name
        assert {provider.ort_name, *provider.fallbacks} <= set(known)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("cuda", "onnxruntime-gpu"),
        ("tensorrt", "onnxruntime-gpu"),
        ("xnnpack", "--use_xnnpack"),
        ("coreml", "macOS"),
        ("qnn", "onnxruntime-qnn"),
        ("openvino", "onnxruntime-openvino"),
        ("acl", "--use_acl"),
    ],
)
def test_a_missing_provider_names_what_brings_it(
    name: str,
    package: str,
    linear: WriteOnnx,
    install: Callable[..., FakeOnnxruntime],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on("aarch64", monkeypatch)
    install([CPU], [CPU])
    with pytest.raises(MissingDependencyError, match=PROVIDERS[name].ort_name) as caught:
        open_session(linear(), provider=name)
    assert package in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_provider_lists_the_near_ones(linear: WriteOnnx) -> None:
    with pytest.raises(TrpexportError, match="unknown provider 'cudaa': did you mean cuda"):
        open_session(linear(), provider="cudaa")


def test_arm_elsewhere_explains_the_three_choices() -> None:
    with pytest.raises(TrpexportError) as caught:
        find_provider("arm", architecture="x86_64")
    message = str(caught.value)
    for choice in ("aarch64 machine", "user@device", "cortex-a72", "arm-setup"):
        assert choice in message
    assert "\n" not in message
    assert caught.value.parameters == ("host", "emulate")
    with pytest.raises(TrpexportError, match="acl does not run on x86_64"):
        find_provider("acl", architecture="x86_64")


@pytest.mark.parametrize("architecture", ["aarch64", "arm64"])
def test_arm_is_the_cpu_provider_there(
    architecture: str, linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(architecture, monkeypatch)
    session = open_session(
        linear(), provider="arm", provider_options={"mlas.disable_kleidiai": "1"}
    )
    assert session.provider.name == "arm"
    assert session.placement == {CPU: 1}
    assert session.run(session.random_inputs())["output"].shape == (1, 4)


# --- whether it really runs -----------------------------------------------------------------


def test_a_provider_that_does_not_start_is_refused(
    linear: WriteOnnx, install: Callable[..., FakeOnnxruntime]
) -> None:
    package = install(["CUDAExecutionProvider", CPU], [CPU])
    with pytest.raises(
        ModelError, match=r"CUDAExecutionProvider does not start here .* run on CPU"
    ):
        open_session(linear(), provider="cuda")
    assert package.severities == [4, 2]  # silent while it loads, then as it was


def test_a_provider_that_runs_no_node_is_refused(
    linear: WriteOnnx, install: Callable[..., FakeOnnxruntime]
) -> None:
    name = PROVIDERS["openvino"].ort_name
    install([name, CPU], [name, CPU], {CPU: 7})
    with pytest.raises(ModelError, match=rf"{name} with device_type=MOON runs no node .* {CPU}"):
        open_session(linear(), provider="openvino", provider_options={"device_type": "MOON"})


def test_a_provider_that_runs_some_nodes_is_accepted_and_the_rest_is_told(
    linear: WriteOnnx, install: Callable[..., FakeOnnxruntime]
) -> None:
    package = install(
        ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU],
        ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU],
        {"TensorrtExecutionProvider": 5, CPU: 2},
    )
    session = open_session(linear(), provider="tensorrt", provider_options={"device_id": "1"})
    assert session.placement == {"TensorrtExecutionProvider": 5, CPU: 2}
    assert package.opened_with == [
        ("TensorrtExecutionProvider", {"device_id": "1"}),
        "CUDAExecutionProvider",
    ]


def test_a_pool_of_its_own_gets_the_number_of_threads(
    linear: WriteOnnx, install: Callable[..., FakeOnnxruntime]
) -> None:
    name = PROVIDERS["xnnpack"].ort_name
    package = install([name, CPU], [name, CPU], {name: 1})
    open_session(linear(), provider="xnnpack", threads=3)
    assert package.opened_with == [(name, {"intra_op_num_threads": "3"})]
    open_session(
        linear(), provider="xnnpack", threads=3, provider_options={"intra_op_num_threads": "2"}
    )
    assert package.opened_with == [(name, {"intra_op_num_threads": "2"})]


def test_the_real_cpu_provider_runs_all_nodes(linear: WriteOnnx) -> None:
    assert open_session(linear()).placement == {CPU: 1}


# --- plug-ins -------------------------------------------------------------------------------


class FakePlugin(FakeOnnxruntime):
    """An onnxruntime that finds devices once the plug-in is registered, or none."""

    def __init__(self, devices: list[Any]) -> None:
        super().__init__([CPU], ["QNNExecutionProvider", CPU], {"QNNExecutionProvider": 1})
        self._found = devices
        self.added: list[Any] = []

    def register_execution_provider_library(self, name: str, path: str) -> None:
        assert (name, path) == ("QNNExecutionProvider", "libqnn.so")
        if name in self.available:
            raise RuntimeError(f"EP library is already registered under {name}")
        self.devices = self._found
        self.available = [CPU, name]  # as it does

    def SessionOptions(self) -> Any:  # noqa: N802 - the package's name
        class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
            def add_provider_for_devices(_, devices: Any, options: Any) -> None:  # noqa: N805
                self.added = [*devices, options]

        return Options()


def ep_device(kind: str, provider: str = "QNNExecutionProvider") -> Any:
    return SimpleNamespace(
        ep_name=provider, device=SimpleNamespace(type=SimpleNamespace(name=kind))
    )


@pytest.fixture
def qnn(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = ModuleType("onnxruntime_qnn")
    plugin.get_library_path = lambda: "libqnn.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", plugin)


@pytest.mark.usefixtures("qnn")
def test_a_plugin_runs_on_its_npu(linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    npu = ep_device("NPU")
    package = FakePlugin([ep_device("CPU", CPU), ep_device("CPU"), npu, ep_device("GPU")])
    monkeypatch.setitem(sys.modules, "onnxruntime", package)
    for _ in range(2):  # it stays registered, and must not be taken for a built-in one then
        package.added, package.opened_with = [], ["unset"]
        open_session(linear(), provider="qnn", provider_options={"backend_type": "htp"})
        assert package.added == [npu, {"backend_type": "htp"}]
        assert package.opened_with is None


@pytest.mark.usefixtures("qnn")
def test_a_plugin_without_a_device_is_refused(
    linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = FakePlugin([])
    monkeypatch.setattr(package, "get_available_providers", lambda: [CPU])
    monkeypatch.setitem(sys.modules, "onnxruntime", package)
    with pytest.raises(ModelError, match=r"QNNExecutionProvider finds no device .* as a host"):
        open_session(linear(), provider="qnn")


@pytest.mark.usefixtures("qnn")
def test_a_plugin_that_does_not_load_is_one_line(linear: WriteOnnx) -> None:
    # The real onnxruntime meets a library that is none.
    with pytest.raises(
        MissingDependencyError, match=r"onnxruntime_qnn does not load .*libqnn"
    ) as e:
        open_session(linear(), provider="qnn")
    assert "\n" not in str(e.value)


# --- options --------------------------------------------------------------------------------


def test_options_are_typed_as_key_and_value() -> None:
    assert parse_provider_options(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for text in ("device_id", "=1"):
        with pytest.raises(TrpexportError, match="give it as key=value"):
            parse_provider_options([text])
    with pytest.raises(TrpexportError, match="a is given twice"):
        parse_provider_options(["a=1", "a=2"])


def test_options_that_a_provider_does_not_have_are_refused(linear: WriteOnnx) -> None:
    with pytest.raises(TrpexportError, match="cpu has no option device_id: it has none"):
        open_session(linear(), provider_options={"device_id": "0"})
    arm = PROVIDERS["arm"]
    with pytest.raises(TrpexportError, match=r"arm has no option x: choose from mlas\.disable_kl"):
        check_options(arm, {"x": "0"})
    with pytest.raises(TrpexportError, match=r"mlas\.disable_kleidiai is 0 or 1, not 'yes'"):
        check_options(arm, {"mlas.disable_kleidiai": "yes"})


def test_options_that_onnxruntime_refuses_are_one_line(
    linear: WriteOnnx, install: Callable[..., FakeOnnxruntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = PROVIDERS["openvino"].ort_name
    package = install([name, CPU], [name, CPU])

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(  # word for word what onnxruntime-openvino 1.24.1 raises
            "/onnxruntime/onnxruntime/python/onnxruntime_pybind_state.cc:1053 "
            "std::shared_ptr<onnxruntime::IExecutionProviderFactory> onnxruntime::python::"
            "CreateExecutionProviderFactoryInstance(const onnxruntime::SessionOptions&, const "
            "std::string&, const onnxruntime::ProviderOptionsMap&) Invalid OpenVINO EP option: "
            "nonsense\n"
        )

    monkeypatch.setattr(package, "InferenceSession", refuse)
    with pytest.raises(ModelError) as caught:
        open_session(linear(), provider="openvino", provider_options={"nonsense": "1"})
    assert str(caught.value) == (
        "the provider openvino refuses nonsense=1: Invalid OpenVINO EP option: nonsense"
    )
