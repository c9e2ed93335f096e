"""``--dry-run``: what could be won and how long it would take, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import progress, show, show_json
from .endings import next_steps
from .retyped import retyped

if TYPE_CHECKING:
    from trpexport.calibration_data import CalibrationData
    from trpexport.choose.selection import Selection
    from trpexport.inputs import Inputs
    from trpexport.pipeline import Decomposable
    from trpexport.refining.refinement import Refinement

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what can be won at best, of which layers, and in what time; write nothing.",
    ),
]


def dry_run(
    context: typer.Context,
    source: Decomposable,
    scheme: str,
    selection: Selection,
    out: Path,
    *,
    data: CalibrationData | None,
    refinement: Refinement | None,
    inputs: Inputs | None = None,
    has_target: bool,
) -> None:
    """Say what low rank can win of a network, and how long that would take.

    Args:
        context: of the command that was typed.
        source: the network's file.
        scheme: name of the scheme, or ``auto``.
        selection: the layers that may be rewritten.
        out: where a bundle would go.
        data: what to calibrate on, which is refused as it would be then; None for no calibration.
        refinement: how the factors are trained further, if they are.
        inputs: the network's, where a plan says them.
        has_target: whether ranks are chosen by what each of them loses.

    Raises:
        TrpexportError: the network or the data can't be used.
    """
    from trpexport.calibration_data import check_images
    from trpexport.choose.outlook import outlook, priced
    from trpexport.report.views.outlook import outlook_view

    with progress() as stages:
        outputs = context.params["output"] or ()
        ready = source.ready(data, inputs=inputs, outputs=outputs, stages=stages)
        network, images, count = ready.network, ready.images, 0
        if images is not None:
            with stages("check the images"):
                count = len(check_images(network, images))
                if context.params["max_drop"] is not None:
                    images.labelled()
        if refinement is not None:
            refinement.check_network(network, images)
        with stages("see what can be won"):
            found = outlook(network, scheme, selection, label=ready.label)
            if count:
                found = priced(found, network, count, has_target=has_target)
    facts: dict[str, Any] = found.to_json()
    command = retyped(context, drop=("is_dry",))
    if context.params["as_json"]:
        show_json({**facts, "out": str(out), "next": [command]})
    else:
        show(*outlook_view(found), *next_steps([(f"do it, and write {out}:", command)]))


def dry_training(context: typer.Context, facts: Mapping[str, Any], out: Path) -> None:
    """Say what would be trained, in how many steps, and what low rank can win at best.

    Args:
        context: of the command that was typed.
        facts: what :func:`trpexport.training.train.planned` returned.
        out: where the run would go.
    """
    from trpexport.report.blocks import Kind, Role, Text, Value

    command = retyped(context, drop=("is_dry",))
    if context.params["as_json"]:
        show_json({**facts, "out": str(out), "next": [command]})
        return
    low_rank, epochs = facts["low_rank"], facts["epochs"]
    blocks = [
        Text((
            f"{facts['arch']} of ", Value(facts["parameters"], Kind.COUNT),
            f" parameters on {facts['data']}: {epochs} epoch{'' if epochs == 1 else 's'} of "
            f"{facts['steps_per_epoch']:,} steps, {facts['steps']:,} in all",
        ))
    ]  # fmt: skip
    if low_rank is not None:
        least = Value(1 / low_rank["least_macs_ratio"], Kind.RATIO)
        said = f" fewer MACs, at the lowest ranks of {low_rank['layers']} layers"
        blocks.append(Text(("Low rank can win at best ", least, said), Role.VERDICT))
    show(*blocks, *next_steps([(f"do it, and write {out}:", command)]))
