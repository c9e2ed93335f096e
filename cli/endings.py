"""How a job ends: the verdict, and the next commands to type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trpexport.errors import NothingToDoError, TrpexportError
from trpexport.onnxfile.recognition import is_onnx

from .console import show, show_json
from .eval import PREPARING
from .options import names
from .retyped import other, retyped

if TYPE_CHECKING:
    from trpexport.choose.survey import CriterionOutcome
    from trpexport.conversion import ConversionReport
    from trpexport.report.blocks import Block
    from trpexport.verdict import Verdict

# What says which network it is, by parameters that decompose, export, tune and inspect share.
NETWORK = ("arch", "model", "input_shape", "unsafe_pickle")
# What excludes a target, or does nothing beside one.
_BESIDE_A_TARGET = ("criterion", "plan", "keep_expensive")
_TARGETS = ("target_macs", "target_params", "target_error", "max_drop")
# What is asked of a command besides its work.
_ASKED = ("as_json", "is_dry")
_IMAGES = "imagefolder:DIR"  # for the reader to replace
_HALF = 0.5
_HALF_PRECISION = "fp16"
_MAX_ERROR = 0.05  # of a precision, as far as hardly any answer changes
# Limits of a gate, for the reader to replace.
_SAME_ANSWERS, _NEAR_OUTPUTS = {"--min-agreement": 98}, {"--max-output-error": 0.1}
# What limits tune.
_LIMITS = ("min_speedup", "max_latency", "max_error", "max_drop")

Proposal = tuple[str, str | None]  # what for, and the command, if there is one


def ending(context: typer.Context, report: Mapping[str, Any], place: Path) -> tuple[Block, ...]:
    """Say what came of a job that wrote a bundle, and what to type next.

    Args:
        context: of the command that was typed: decompose or tune.
        report: the content of ``report.json``.
        place: the bundle.
    """
    from trpexport.report.views.verdict import verdict_view
    from trpexport.verdict import verdict_of

    return *verdict_view(verdict_of(report)), *next_steps(proposed(context, report, place))


def proposed(context: typer.Context, report: Mapping[str, Any], place: Path) -> list[Proposal]:
    """Return what to type after a job that wrote a bundle, the first thing first.

    Args:
        context: of the command that was typed: decompose or tune.
        report: the content of ``report.json``.
        place: the bundle.
    """
    from trpexport.verdict import verdict_of

    verdict = verdict_of(report)
    return [] if verdict is None else _proposals(context, verdict, report, place)


def commands_of(proposals: Iterable[Proposal]) -> list[str]:
    """Return the commands among proposals."""
    return [command for _, command in proposals if command is not None]


def export_ending(context: typer.Context, place: Path) -> tuple[Block, ...]:
    """Say what came of an export, and what to type next."""
    from trpexport.report.blocks import Role, Text, Tone

    said = "Nothing lost: the ONNX file gives what the network gives, in float32"
    return Text(said, Role.VERDICT, Tone.GOOD), *next_steps(after_export(context, place))


def after_export(context: typer.Context, place: Path) -> list[Proposal]:
    """Return what to type after an export."""
    return [("measure its speed:", other(context, "bench", place))]


def conversion_ending(context: typer.Context, result: ConversionReport) -> tuple[Block, ...]:
    """Say whether each precision of a file pays, and what to type next."""
    from trpexport.report.views.verdict import verdict_view

    verdicts = result.verdicts()
    said = [block for name, one in verdicts.items() for block in verdict_view(one, name)]
    return *said, *next_steps(after_conversion(context, result))


def after_conversion(context: typer.Context, result: ConversionReport) -> list[Proposal]:
    """Return what to type after a file was written in other precisions."""
    from trpexport.verdict import Outcome

    verdicts = result.verdicts()
    if not verdicts:
        return []
    bad = {Outcome.DESTROYED, Outcome.HARDLY_PAYS} & {one.outcome for one in verdicts.values()}
    if bad and context.params["max_error"] is None:
        add = {"max_error": _MAX_ERROR, "force": True}
        command = retyped(context, drop=_ASKED, add=add)
        return [("keep the nodes that lose most in float32:", command)]
    files = [context.params["model"], *(result.paths[name] for name in verdicts)]
    return [("measure the speed-up:", other(context, "bench", *files))]


def next_steps(proposals: Sequence[Proposal]) -> tuple[Block, ...]:
    """Show what to do next, the first thing first; nothing where there is nothing."""
    from trpexport.report.blocks import Role, Text

    blocks = []
    for index, (purpose, command) in enumerate(proposals):
        blocks.append(Text(f"{'Or' if index else 'Next:'} {purpose}"))
        if command is not None:
            blocks.append(Text(f"  {command}", Role.COMMAND))
    return tuple(blocks)


@contextmanager
def refused(context: typer.Context, *, as_json: bool) -> Iterator[None]:
    """Say what to type next where a job has nothing to do, or can't keep within its limits.

    Raises:
        NothingToDoError: it has, or can't.
    """
    try:
        yield
    except NothingToDoError as error:
        blocks, facts, choice, architecture = _found(error)
        _tell(error, _instead(context, choice, architecture), as_json, blocks, facts)
        raise


@contextmanager
def conversion_refused(context: typer.Context, *, as_json: bool) -> Iterator[None]:
    """Say what to type next where no file in a precision keeps within its limits.

    Raises:
        NothingToDoError: none does.
    """
    try:
        yield
    except NothingToDoError as error:
        _tell(error, [*_more_bits(context)], as_json)
        raise


def _more_bits(context: typer.Context) -> Iterator[Proposal]:
    """Propose a precision that loses less, and limits twice as wide."""
    asked = names(context.params["precision"])
    if _HALF_PRECISION not in asked:
        add: dict[str, object] = {"precision": _HALF_PRECISION}
        yield "use a precision with more bits:", retyped(context, drop=_ASKED, add=add)
    wide = {
        name: 2 * limit
        for name in ("max_error", "max_drop")
        if (limit := context.params[name]) is not None
    }
    if wide:
        yield "allow a larger loss:", retyped(context, drop=_ASKED, add=wide)


def _tell(
    error: NothingToDoError,
    proposals: Sequence[Proposal],
    as_json: bool,
    blocks: Sequence[Block] = (),
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Show what an error knows, and what to type instead."""
    if as_json:
        end = {"exit_code": error.exit_code, "next": commands_of(proposals)}
        show_json({"error": str(error), **(facts or {}), **end})
    else:
        show(*blocks, *next_steps(proposals))


def _found(
    error: NothingToDoError,
) -> tuple[tuple[Block, ...], dict[str, Any], CriterionOutcome | None, str | None]:
    """Return what an error knows: to show, as facts, the mildest criterion, the architecture."""
    from trpexport.choose.base import NothingCheaperError
    from trpexport.choose.survey import mildest, survey
    from trpexport.report.views.choices import choices_view
    from trpexport.report.views.plan import plan_view

    if not isinstance(error, NothingCheaperError):
        return (), {}, None, error.architecture
    choices = survey(error.analysis) if error.analysis else []
    facts = {"choices": [vars(choice) for choice in choices]}
    if any(choice.layers for choice in choices):
        blocks = choices_view(choices, error.plan)
    else:  # nothing helps: the reasons of the layers say why
        blocks = plan_view(error.plan)
    return blocks, facts, mildest(choices), error.plan.architecture


def _instead(
    context: typer.Context, choice: CriterionOutcome | None, architecture: str | None
) -> list[Proposal]:
    """Return what to type instead: calibration, then TRP, then other criteria or limits."""
    found: list[Proposal] = []
    if context.params.get("calib") is None:
        found.append(_calibrated(context, _HALF))
    found.append(_trained(context, architecture))
    if choice is not None:
        command = retyped(context, drop=_ASKED, add={"criterion": choice.criterion})
        found.append(("cut the weights all the same, and lose accuracy:", command))
    if "pareto" in context.params and not context.params["pareto"]:
        command = retyped(context, drop=(*_LIMITS, *_ASKED), add={"pareto": True})
        found.append(("see what other speed-ups cost:", command))
    return [*found, *([] if choice else _milder(context))]


def _calibrated(context: typer.Context, share: float, place: Path | None = None) -> Proposal:
    """Return the command that was typed, calibrated to keep a share of the MACs.

    Args:
        context: of the command.
        share: to keep, unless a target was typed.
        place: where a bundle stands by now; None for nowhere.
    """
    typed = context.params
    add = _elsewhere(context, place, "calibrated")
    if not typed.get("calib"):
        add["calib"] = _labelled(context)
    if "target_macs" in typed and not any(typed.get(name) is not None for name in _TARGETS):
        add["target_macs"] = share
        if _is_default(context, "scheme"):
            add["scheme"] = "auto"
    command = retyped(context, drop=(*_BESIDE_A_TARGET, *_ASKED), add=add)
    return "calibrate on images, without labels:", command


def _is_default(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT"


def _elsewhere(context: typer.Context, place: Path | None, ending: str) -> dict[str, object]:
    """Return where a further bundle goes, if one stands that is not to be replaced."""
    if place is None or context.params["force"]:
        return {}
    return {"out": place.with_name(f"{place.name}-{ending}")}


def _trained(context: typer.Context, architecture: str | None) -> Proposal:
    """Return how the network is trained towards low rank: by a command, if it is of the zoo."""
    file = _file(context)
    if architecture is None or is_onnx(file) or not _is_of_the_zoo(architecture):
        return (
            "train it towards low rank, with trpexport.TrainedRankPruning in your training loop",
            None,
        )
    options = {
        "--arch": architecture,
        "--init": file,
        "--data": _labelled(context),
        "--trp": True,
        "--target-macs": _HALF,
    }
    return "train it towards low rank, with labels:", other(context, "train", add=options)


def _is_of_the_zoo(architecture: str) -> bool:
    zoo = import_module("trpexport.models_zoo")
    try:
        zoo.parse_architecture(architecture, num_classes=1)
    except TrpexportError:
        return False
    return True


def _file(context: typer.Context) -> Path:
    """Return the network that was typed."""
    file: Path = context.params.get("checkpoint") or context.params["network"]
    return file


def _labelled(context: typer.Context) -> str:
    """Return the images with labels that were typed, or what stands for them."""
    typed = (context.params.get(name) for name in ("data", "expect", "calib"))
    return next((text for text in typed if text is not None), _IMAGES)


def _proposals(
    context: typer.Context, verdict: Verdict, report: Mapping[str, Any], place: Path
) -> list[Proposal]:
    """Return what the verdict advises, as commands with what they are for."""
    from trpexport.verdict import Advice

    data = _labelled(context)
    share = round(1 / verdict.saved.get("macs", 2.0), 2)
    model = ("model",)
    found: list[Proposal] = []
    for advice in verdict.advice:
        match advice:
            case Advice.CALIBRATE:
                found.append(_calibrated(context, share, place))
            case Advice.TRAIN:
                found.append(_trained(context, report["architecture"]))
            case Advice.CHOOSE:
                found += _milder(context, place)
            case Advice.FINETUNE:
                command = other(context, "finetune", place, keep=model, add={"--data": data})
                found.append(("fine-tune it on images with labels:", command))
            case Advice.QUANTIZE:
                found.append(_quantized(context))
            case Advice.EVALUATE:
                found += _judged(context, verdict, report, place)
            case Advice.BENCH:
                found.append(_benched(context, place))
    return found


def _judged(
    context: typer.Context, verdict: Verdict, report: Mapping[str, Any], place: Path
) -> Iterator[Proposal]:
    """Return how a network is judged: by labels, else by its answers, or by what it puts out."""
    data = _labelled(context)
    is_classifier = verdict.lost is None or verdict.lost.agreement is not None
    if is_classifier and (data != context.params.get("calib") or _are_labelled(report)):
        yield "measure its accuracy:", other(context, "eval", place, add={"--data": data})
    elif _has_original(context):
        files = {"--candidate": place}
        if not _has_baseline(context):
            files["--baseline"] = _file(context)
        limit = _SAME_ANSWERS if is_classifier else _NEAR_OUTPUTS
        purpose = f"hold its {'answers' if is_classifier else 'outputs'} to a limit:"
        yield purpose, other(context, "gate", add={**files, "--data": data, **limit})


def _are_labelled(report: Mapping[str, Any]) -> bool:
    """Whether the images that were calibrated on have labels, as far as is known."""
    return bool((report["calibration"] or {}).get("is_labelled", True))


def _benched(context: typer.Context, place: Path) -> Proposal:
    """Return how a network is timed: beside the original, if that is there as ONNX."""
    if not _has_original(context):
        purpose = "measure its speed (the speed-up, too, of a bundle with --add-baseline):"
        return purpose, other(context, "bench", place)
    original = () if _has_baseline(context) else (_file(context),)
    return "measure the speed-up:", other(context, "bench", *original, place)


def _has_original(context: typer.Context) -> bool:
    """Whether the original network is at hand as ONNX, in the bundle or as it was typed."""
    return _has_baseline(context) or is_onnx(_file(context))


def _has_baseline(context: typer.Context) -> bool:
    """Whether the bundle holds the original network, which tune always adds."""
    return bool(context.params.get("add_baseline", True))


def _milder(context: typer.Context, place: Path | None = None) -> Iterator[Proposal]:
    """Return the command that was typed with a target half as far away, or what shows criteria."""
    for name in ("target_macs", "target_params"):
        share = context.params.get(name)
        if share is not None:
            add = {name: round((1 + share) / 2, 2), **_elsewhere(context, place, "milder")}
            yield "save less:", retyped(context, drop=_ASKED, add=add)
            return
    if "criterion" in context.params and context.params.get("plan") is None:
        keep = (*NETWORK, "scheme", "include", "exclude", "stride_1_only")
        yield "compare other criteria:", other(context, "inspect", _file(context), keep=keep)


def _quantized(context: typer.Context) -> Proposal:
    """Return the command that writes the network as it is in int8."""
    file = _file(context)
    data = {"--calib": context.params.get("calib") or _IMAGES}
    purpose = "quantize it to int8 instead:"
    if is_onnx(file):
        return purpose, other(context, "quantize", file, keep=PREPARING, add=data)
    keep = (*NETWORK, *PREPARING)
    return purpose, other(context, "export", file, keep=keep, add={"--precision": "int8", **data})
