"""Every pass is held to its claim, and the one that breaks it is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest

from tests.artifact.networks import SHAPE, tiny
from trpexport.artifact.passes import (
    PASSES,
    Approximate,
    Claim,
    Context,
    Equivalent,
    Pass,
    run_passes,
)
from trpexport.artifact.passes.base import PassResult
from trpexport.artifact.reference import ReferenceRuns
from trpexport.compare import Tolerance
from trpexport.errors import ModelError, TrpexportError, VerificationError
from trpexport.inputs import Inputs
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.runtime.session import open_session

Change = Callable[[Path], None]


@pytest.fixture
def context() -> Context:
    network = TorchNetwork(tiny(), SHAPE)
    return Context(
        network=network,
        reference=ReferenceRuns(network, Inputs.of(SHAPE), macs=1),
        settings=OnnxSettings(17, legacy_exporter=True),
        metadata={"trpexport.version": "1"},
    )


@pytest.fixture
def file(tmp_path: Path, context: Context) -> Path:
    path = tmp_path / "model.onnx"
    PASSES["export"](path, context)
    return path


def tamper(file: Path) -> None:
    """Make the weights of one convolution a tenth larger."""
    network = onnx.load(file)
    for tensor in network.graph.initializer:
        if tensor.name == "conv2.weight" or list(tensor.dims) == [16, 16, 3, 3]:
            values = onnx.numpy_helper.to_array(tensor) * np.float32(1.1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(network, file)


def change_nothing(file: Path) -> None:
    assert file.is_file()


def made_pass(
    change: Change, claim: Claim | None = None, *, name: str = "made", optional: bool = False
) -> Pass:
    """Return a pass that does ``change``."""

    class Made(Pass):
        title = "make something up"
        is_optional: ClassVar[bool] = optional

        def apply(self, file: Path, context: Context) -> PassResult:
            change(file)
            return PassResult()

    Made.name = name
    Made.claim = claim or Equivalent()
    return Made()


@pytest.fixture
def registered() -> Iterator[Callable[[Pass], str]]:
    """Puts passes into the registry until the end of the test."""
    names: list[str] = []

    def register(one: Pass) -> str:
        names.append(one.name)
        PASSES.register(one.name, one)
        return one.name

    yield register
    for name in names:
        del PASSES._entries[name]


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_keeps_its_claim(name: str, file: Path, context: Context) -> None:
    step = PASSES[name](file, context)
    assert step.name == name == PASSES[name].name
    assert PASSES[name].title
    assert step.claim is PASSES[name].claim
    assert step.outputs["output"].inputs >= 8
    if isinstance(step.claim, Equivalent):
        assert step.claim.broken_by(step.outputs) is None
    assert step.note is None
    assert step.seconds > 0
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_that_lies_is_caught(name: str, file: Path, context: Context) -> None:
    honest, before = PASSES[name], file.read_bytes()

    def apply(self: Pass, file: Path, context: Context) -> PassResult:
        result = honest.apply(file, context)
        tamper(file)
        return result

    lying: Pass = type("Lying", (type(honest),), {"apply": apply})()
    if isinstance(honest.claim, Approximate):
        assert lying(file, context).outputs["output"].rms_error > 1e-3
    elif honest.is_optional:
        step = lying(file, context)
        assert step.note is not None
        assert step.note.startswith(f"{name} was left out: it changed what the network computes")
        assert step.outputs == {}
        assert file.read_bytes() == before
        assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]
    else:
        says = f"^conv2 drifts: the pass {name} changed what the network computes .*output: max err"
        with pytest.raises(VerificationError, match=says) as caught:
            lying(file, context)
        assert caught.value.exit_code == 4
        assert honest.advice in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_pass_has_a_tolerance_of_its_own(file: Path, context: Context) -> None:
    tolerant = made_pass(tamper, Equivalent(Tolerance(max_error=10, rms_error=1)))
    step = tolerant(file, context)
    assert 1e-3 < step.outputs["output"].rms_error < 1
    strict = made_pass(change_nothing, Equivalent(Tolerance(max_error=1e-12, rms_error=1e-12)))
    with pytest.raises(VerificationError, match="the pass made changed"):
        strict(file, context)


def test_an_approximation_is_reported_and_never_passed(file: Path, context: Context) -> None:
    step = made_pass(tamper, Approximate())(file, context)
    facts = step.to_json()
    assert facts["claim"] == {"kind": "approximate", "tolerance": None}
    assert facts["outputs"]["output"]["rms_error"] > 1e-3
    assert "passed" not in str(facts)


def test_after_an_approximation_files_are_compared_with_it(
    file: Path, context: Context, registered: Callable[[Pass], str]
) -> None:
    rough = registered(made_pass(tamper, Approximate(), name="rough"))
    steps = run_passes(["export", rough, "annotate"], file, context)
    errors = [step.outputs["output"].rms_error for step in steps]
    assert errors[1] > 1e-3
    assert max(errors[0], errors[2]) < 1e-6
    liar = registered(made_pass(tamper, name="liar"))
    # Every layer differs from the PyTorch network now: none is named.
    with pytest.raises(VerificationError, match=r"^the network drifts: the pass liar changed"):
        run_passes(["export", rough, liar], file, context)


def test_the_last_file_is_compared_for_the_time_that_is_given(file: Path, context: Context) -> None:
    first, last = run_passes(["export", "annotate"], file, context, seconds=0.5)
    assert first.outputs["output"].inputs < last.outputs["output"].inputs


def test_an_unknown_pass_is_named(file: Path, context: Context) -> None:
    with pytest.raises(TrpexportError, match="unknown pass 'simplfy': did you mean simplify"):
        run_passes(["simplfy"], file, context)


def write_garbage(file: Path) -> None:
    file.write_bytes(b"garbage")


def double_metadata(file: Path) -> None:
    network = onnx.load(file)
    for value in "ab":
        network.metadata_props.add(key="same", value=value)
    onnx.save(network, file)


def drop_nodes(file: Path) -> None:
    network = onnx.load(file)
    del network.graph.node[:]
    onnx.save(network, file)


def other_output(file: Path) -> None:
    network = onnx.load(file)
    network.graph.node.add(op_type="Shape", input=["input"], output=["shape"])
    network.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info("shape", 7, [4]))
    onnx.save(network, file)


def give_up(file: Path) -> None:
    raise ModelError("there is no time")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (write_garbage, "wrote can't be used"),
        (double_metadata, "wrote can't be used .*no valid ONNX: .*duplicate keys"),
        (drop_nodes, "wrote can't be used"),
        (other_output, "wrote can't be used .*can't be compared"),
        (give_up, "there is no time"),
    ],
)
def test_a_pass_that_breaks_the_file(
    file: Path, context: Context, change: Change, says: str
) -> None:
    before = file.read_bytes()
    step = made_pass(change, optional=True)(file, context)
    assert step.note is not None
    assert step.note.startswith("made was left out: ")
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]
    with pytest.raises(ModelError, match=says) as caught:
        made_pass(change)(file, context)
    assert "\n" not in str(caught.value)


def test_an_optional_pass_takes_effect(file: Path, context: Context) -> None:
    def rename(file: Path) -> None:
        network = onnx.load(file)
        network.graph.name = "renamed"
        onnx.save(network, file)

    step = made_pass(rename, optional=True)(file, context)
    assert step.note is None
    assert step.outputs["output"].max_error < 1e-4
    assert onnx.load(file).graph.name == "renamed"
    assert open_session(file).batch_size == 1
