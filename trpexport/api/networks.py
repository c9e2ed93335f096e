"""Networks from Python: decompose, verify, export, count, load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from trpexport.bundle import locate
from trpexport.errors import PlanError
from trpexport.stages import Stages

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trpexport.artifact.build import BundleReport
    from trpexport.calibration_data import CalibrationData
    from trpexport.choose.base import Chooser
    from trpexport.cost import Cost
    from trpexport.datasets import Dataset, Preprocessing, TensorSet
    from trpexport.expectations import Expectation
    from trpexport.inputs import Inputs
    from trpexport.pipeline import Decomposed
    from trpexport.refining.refinement import Refinement
    from trpexport.runtime.verify import Verification

    OneExample = Tensor | NDArray[Any] | Sequence[int]
    Example = OneExample | Mapping[str, OneExample] | Sequence[OneExample]
    Named = Dataset | TensorSet | str | Path
    Images = Named | Tensor | NDArray[Any] | Mapping[str, Any] | Iterable[Any]

Announce = Callable[[str], None]
_CALIBRATED = 512  # samples of a data set or of an iterable
_GATHERED = 768  # samples to take of an iterable: others are held out
_INPUT_RANK = 2


def decompose(
    model: nn.Module | str | Path,
    chooser: Chooser,
    *,
    example: Example | None = None,
    images: Images | None = None,
    preprocessing: Preprocessing | None = None,
    outputs: Sequence[str] = (),
    arch: str | None = None,
    factory: str | None = None,
    unsafe_pickle: bool = False,
    expect: Dataset | str | None = None,
    refine: float | Refinement | None = None,
    device: str = "auto",
    announce: Announce | None = None,
) -> Decomposed[Any]:
    """Rewrite the linear layers of a network as chains of cheaper ones.

    Args:
        model: a module, which is left as it is, or the path of a checkpoint or of an ONNX file,
            whose graph is rewritten.
        chooser: chooses schemes and ranks: :class:`~trpexport.ByCriterion`,
            :class:`~trpexport.ByBudget` or :class:`~trpexport.ByPlan`.
        example: an input of the network, or the shape of one, batch first; as the images or the
            checkpoint say where it is None. Of a network with several inputs a mapping by the names
            of its forward's parameters, or a tuple in their order; whole numbers as arrays.
        images: unlabelled images to fit the factors to, as :func:`~trpexport.datasets.given.\
            data_from` takes them: inputs of the network (images, channels, height, width), by name
            where it has several; a ``DataLoader`` or another iterable; a data set, as in
            ``cifar10:DIR``, or a path. Bytes are images, floats are input as they are. None for
            the SVD's factors.
        preprocessing: how images become input, which a bundle keeps; as the checkpoint says where
            it is None.
        outputs: names of the outputs whose errors count, or globs of them, where not all do.
        arch: the checkpoint's architecture, where it can't be recognised.
        factory: ``package.module:factory`` that makes the checkpoint's network.
        unsafe_pickle: load a file that holds pickled code, **which runs that code**.
        expect: labelled images that a checkpoint should classify, prepared as ``preprocessing``
            says; a look-alike of its architecture is taken where that does clearly better.
        refine: minutes to train the fitted factors further, on the same images, and others of
            their data set, towards the original network, or a :class:`~trpexport.Refinement`.
        device: where the factors are fitted: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is
            one, and where a module is already if that is no processor. They come back from there.
        announce: called with a line on each step.

    Raises:
        NothingToDoError: no layer would get cheaper, or the budget can't be met.
        TrpexportError: the network, the images or what was chosen can't be used.
    """
    from torch import nn

    from trpexport.datasets import TensorSet
    from trpexport.networks.torch.network import TorchNetwork
    from trpexport.onnxfile.recognition import is_onnx
    from trpexport.pipeline import Decomposable, Source, decompose_network
    from trpexport.refining.refinement import Refinement

    stages = Stages(announce)
    chooser.check()
    refinement = Refinement(refine, device=device) if isinstance(refine, int | float) else refine
    if refinement is not None:
        refinement.check()
    module = model if isinstance(model, nn.Module) else None
    inputs = _inputs(example, None, module)
    drawn = _calibration(images, preprocessing, inputs)
    if inputs is None and drawn is not None and isinstance(drawn.dataset, TensorSet):
        inputs = _inputs(None, drawn.dataset.given(drawn.dataset.inputs), module)
    if isinstance(model, nn.Module):
        inputs = inputs or chooser.inputs
        if inputs is None:
            raise PlanError("the shape of the network's input is not known: give an example input")
        found = None if drawn is None else drawn.read_for(None, inputs)[0]
        network = TorchNetwork.open(model, inputs, outputs)
        return decompose_network(
            network,
            chooser,
            found,
            label=type(model).__name__,
            refinement=refinement,
            device=device,
            stages=stages,
        )
    source: Decomposable
    if is_onnx(Path(model)):
        from trpexport.onnx_files import OnnxFileSource

        _refuse_for_onnx(arch=arch, factory=factory, unsafe_pickle=unsafe_pickle, expect=expect)
        source = OnnxFileSource(Path(model), inputs)
    else:
        expected = _expectation(expect, preprocessing)
        source = Source(Path(model), arch, factory, inputs, unsafe_pickle, expected)
    return source.decompose(
        chooser, drawn, outputs=outputs, refinement=refinement, device=device, stages=stages
    )


def verify(
    model: Decomposed[Any] | str | Path,
    reference: str | Path | None = None,
    *,
    inputs: Images | None = None,
    preprocessing: Preprocessing | None = None,
    seconds: float = 5.0,
) -> Verification:
    """Check that two things that must compute the same do.

    Args:
        model: a decomposed network, which is compared with the dense one that its factors stand
            for; a bundle, compared with the outputs that its export wrote down; an ONNX file.
        reference: of an ONNX file, the ONNX file or the bundle that is right.
        inputs: real inputs of two files, as :func:`decompose` takes images; random ones where None.
        preprocessing: how images become input; as a bundle says where it is None.
        seconds: how long to compare a decomposed network or two files.

    Raises:
        VerificationError: the factors of a layer are not what the plan says.
        ModelError: a file can't be read or run.
        PlanError: an ONNX file has nothing to be compared with.
    """
    from trpexport.judge.real_inputs import real_inputs
    from trpexport.runtime.verify import (
        Verification,
        verify_against_golden,
        verify_bundle,
        verify_models,
    )

    if not isinstance(model, str | Path):
        return Verification(model.verify(seconds=seconds).equivalence)
    path = Path(model)
    if reference is None:
        if not path.is_dir():
            raise PlanError(f"{path} has nothing to be compared with: give the reference")
        return verify_bundle(path)
    if Path(reference).is_dir() and inputs is None:
        return verify_against_golden(path, Path(reference))
    files = [Path(reference), path]
    given = None if inputs is None else real_inputs(inputs, files, preprocessing)
    truth, suspect = (locate(file)[0] for file in files)
    return verify_models(truth, suspect, inputs=given, seconds=seconds)


def export(
    model: Decomposed[Any] | str | Path,
    out: str | Path,
    *,
    inputs: Images | None = None,
    arch: str | None = None,
    factory: str | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    expect: Dataset | str | None = None,
    preprocessing: Preprocessing | None = None,
    opset: int = 18,
    dynamic_batch: bool = False,
    dynamic: Sequence[str] = (),
    legacy_exporter: bool = False,
    simplify: bool | None = None,
    baseline: bool = False,
    verify_seconds: float = 20.0,
    replace: bool = False,
    keep_norms: bool = False,
    precisions: Sequence[str] = (),
    max_error: float | None = None,
    min_agreement: float | None = None,
    target_ort: str | None = None,
    check_target: bool = False,
    formats: Sequence[str] = (),
    announce: Announce | None = None,
) -> BundleReport:
    """Write a verified ONNX file and all that belongs to it as a directory, whole or not at all.

    Args:
        model: a decomposed network, or the path of a checkpoint, which is exported as it is.
        out: the directory.
        inputs: real inputs to verify on, as :func:`decompose` takes images; random ones where there
            are none.
        arch: a checkpoint's architecture, where it can't be recognised.
        factory: ``package.module:factory`` that makes a checkpoint's network.
        input_shape: shape of a checkpoint's input, where it does not say; of several by name.
        expect: labelled images that a checkpoint should classify, as for :func:`decompose`.
        preprocessing: how images become input, which the bundle keeps; as the checkpoint says where
            it is None.
        opset: ONNX operator set to write.
        dynamic_batch: leave the batch size of the ONNX file open.
        dynamic: other dimensions to leave open: ``height``, ``width``, or ``NAME:AXIS=DIMENSION``.
        legacy_exporter: use the TorchScript-based exporter.
        simplify: run onnxsim on the file; None leaves that to the network.
        baseline: write the original network into the bundle as well, to bench against.
        verify_seconds: how long whole networks are compared, all comparisons together.
        replace: replace a bundle that stands in the place.
        keep_norms: leave batch norms apart from the kernels before them, to decompose the file.
        precisions: in which precisions besides float32 the network is written.
        max_error: largest error of any output that these and the network may have, over its
            variation.
        min_agreement: least share of inputs with the same top-1 that a decomposed network keeps of
            the original, between 0 and 1.
        target_ort: the oldest version of ONNX Runtime that has to read the files, as in "1.16".
        check_target: run them in that version, which is installed for it.
        formats: ``"ort"`` for ONNX Runtime's own format besides.
        announce: called with a line on each step.

    Raises:
        VerificationError: the rewrite or the ONNX file is not equivalent; nothing is written.
        TrpexportError: the network can't be exported, or the place can't be written.
    """
    from trpexport.artifact.build import ExportSettings
    from trpexport.exporting import export_checkpoint
    from trpexport.onnxfile.recognition import is_onnx
    from trpexport.pipeline import Source

    how = ExportSettings(
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        legacy_exporter=legacy_exporter,
        simplify=simplify,
        baseline=baseline,
        verify_seconds=verify_seconds,
        replace=replace,
        keep_norms=keep_norms,
        precisions=precisions,
        max_error=max_error,
        min_agreement=min_agreement,
        target_ort=target_ort,
        check_target=check_target,
        formats=formats,
        preprocessing=preprocessing,
    )
    stages = Stages(announce)
    if not isinstance(model, str | Path):
        given = _calibration(inputs, preprocessing, model.network.inputs)
        return model.export(Path(out), settings=how, inputs=given, stages=stages)
    if is_onnx(Path(model)):
        raise PlanError(
            f"{model} is an ONNX file, which needs no export: decompose makes it smaller"
        )
    expected = _expectation(expect, preprocessing)
    taken = _inputs(input_shape, None, None)
    source = Source(Path(model), arch, factory, taken, expect=expected)
    given = _calibration(inputs, preprocessing, taken)
    return export_checkpoint(source, Path(out), settings=how, inputs=given, stages=stages)


def count(
    model: Decomposed[Any] | nn.Module | str | Path,
    *,
    example: Example | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Cost:
    """Count what a network costs: MACs, parameters, activations; what is not known is listed.

    Args:
        model: a decomposed network, a module, or the path of an ONNX file, a bundle or a
            checkpoint.
        example: an input of a module or checkpoint, or the shape of one, batch first.
        shapes: whole input shapes of an ONNX file, where it leaves them open.

    Raises:
        TrpexportError: the network can't be read or run.
    """
    if isinstance(model, str | Path):
        from trpexport.onnxfile.counting import count_onnx
        from trpexport.onnxfile.recognition import is_checkpoint

        path, _ = locate(Path(model))
        if not is_checkpoint(path):
            return count_onnx(path, shapes=shapes or {})
    from torch import nn

    from trpexport.networks.torch.counting import count_module
    from trpexport.pipeline import Source

    if isinstance(model, str | Path):
        checkpoint = Source(path, inputs=_inputs(example, None, None)).load()
        return count_module(checkpoint.module, checkpoint.known_inputs)
    if not isinstance(model, nn.Module):
        cost: Cost = model.network.cost
        return cost
    inputs = _inputs(example, None, model)
    if inputs is None:
        raise PlanError("the shape of the network's input is not known: give an example input")
    return count_module(model, inputs)


def _inputs(example: Any, images: Any, model: nn.Module | None) -> Inputs | None:
    """Return what a network takes, as an example or arrays of images say.

    Args:
        example: an array, a shape, or several of them, by name or in order.
        images: arrays to calibrate on, of which one is an example; None for none.
        model: the network that knows the names of inputs in order.
    """
    from trpexport.inputs import INPUT, Input, Inputs, input_of_array

    def one(value: Any, batch: int | None = None) -> Input:
        if hasattr(value, "shape"):
            return input_of_array(_array(value), batch)
        return Input(tuple(int(size) for size in value))

    given, batch = (images, 1) if example is None else (example, None)
    if given is None or (example is None and not _are_inputs(images)):
        return None
    if isinstance(given, Mapping):
        return Inputs({name: one(value, batch) for name, value in given.items()})
    if hasattr(given, "shape") or all(_is_size(value) for value in given):
        return Inputs({INPUT: one(given, batch)})
    if model is None:
        raise PlanError("give the inputs of a checkpoint's network by name")
    from trpexport.networks.torch.arguments import names_by_place

    names = names_by_place(model, len(given))
    return Inputs({name: one(value) for name, value in zip(names, given, strict=True)})


def _refuse_for_onnx(**given: Any) -> None:
    """Refuse what says how a checkpoint is read: an ONNX file says it all.

    Raises:
        PlanError: something is given.
    """
    name = next((name for name, value in given.items() if value), None)
    if name is not None:
        raise PlanError(f"{name} does nothing for an ONNX file: leave it out")


def _is_size(value: Any) -> bool:
    return isinstance(value, SupportsIndex) and not getattr(value, "shape", ())


def _are_inputs(images: Any) -> bool:
    arrays = images.values() if isinstance(images, Mapping) else [images]
    return all(len(getattr(array, "shape", ())) >= _INPUT_RANK for array in arrays)


def _array(values: Any) -> NDArray[Any]:
    from trpexport.networks.samples import plain_array

    return plain_array(values)


def _expectation(data: Any, preprocessing: Preprocessing | None) -> Expectation | None:
    from trpexport.datasets import open_dataset
    from trpexport.expectations import Expectation

    if data is None:
        return None
    return Expectation(open_dataset(data) if isinstance(data, str) else data, preprocessing)


def _calibration(
    images: Any, preprocessing: Preprocessing | None, inputs: Inputs | None
) -> CalibrationData | None:
    """Return what to calibrate on, of an iterable as much as is needed; None for nothing."""
    from trpexport.calibration_data import CalibrationData
    from trpexport.datasets.given import data_from, is_at_hand

    if images is None:
        return None
    data = data_from(images, inputs, limit=_GATHERED)
    return CalibrationData(
        data, None if is_at_hand(images) else _CALIBRATED, preprocessing=preprocessing
    )
