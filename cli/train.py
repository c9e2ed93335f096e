"""``trpexport train``: a network that is low-rank already when its training ends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trpexport.errors import TrpexportError

from . import completion, measuring
from . import options as opt
from .alignment import RankMultiple, multiple
from .console import show_json, watched
from .dry_run import DryRun, dry_training
from .endings import next_steps
from .eval import DATA, Mean, Resize, Size, Std
from .idle import Idle, refuse_idle, refuse_typed
from .interrupts import is_asked, tell
from .pixels import normalisation, read_size
from .retyped import other, retyped

if TYPE_CHECKING:
    from trpexport.training.settings import Compute, RunSettings
    from trpexport.training.watching import Watcher

Data = Annotated[str, typer.Option(help=DATA, autocompletion=completion.data)]
RunOut = Annotated[Path, typer.Option("--out", "-o", help=opt.OUT)]
Recipe = Annotated[
    str,
    typer.Option(
        help="Training recipe: original, one-cycle, cosine, imagenet or finetune.",
        autocompletion=completion.recipes,
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data. Default: the recipe's.")]
LearningRate = Annotated[
    float | None, typer.Option("--lr", help="Largest learning rate. Default: the recipe's.")
]
WeightDecay = Annotated[float | None, typer.Option(help="L2 penalty. Default: the recipe's.")]
NoAugment = Annotated[
    bool,
    typer.Option(
        "--no-augment", help="Do not augment training images (no shifts, crops or mirroring)."
    ),
]
Decoders = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Processes that decode image files. Default: one for each core."
    ),
]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Run the forward pass in bfloat16.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network.")]
CudaGraphs = Annotated[
    bool,
    typer.Option("--cuda-graphs", help="Record training steps as CUDA graphs and replay them."),
]
SyncBn = Annotated[
    bool, typer.Option("--sync-bn", help="Synchronise batch-norm statistics over all processes.")
]
SaveSeconds = Annotated[
    float, typer.Option(help="Seconds between saved states within an epoch, to resume from.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write logs for TensorBoard.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Discard the run in the directory and start anew.")
]


# What decompose has to be told as training was.
_SHARED = ("scheme", "stride_1_only")

_IDLE = (
    Idle(("target_macs", "trp_energy"), without="trp"),
    Idle(("trp_energy",), beside="target_macs"),
)


def train(
    context: typer.Context,
    arch: Annotated[str, typer.Option(help=opt.ARCH, autocompletion=completion.architectures)],
    data: Data,
    out: RunOut = Path("run"),
    init: Annotated[
        Path | None,
        typer.Option(help="Start from this checkpoint or bundle of the same architecture."),
    ] = None,
    recipe: Recipe = "original",
    scheme: opt.Scheme = "spatial",
    trp: Annotated[
        bool,
        typer.Option(
            "--trp", help="Trained rank pruning: project convolutions onto low rank while training."
        ),
    ] = False,
    trp_energy: Annotated[
        float, typer.Option(help="Share of each spectrum's energy that a projection keeps.")
    ] = 0.9,
    trp_period: Annotated[int, typer.Option(help="Steps between projections.")] = 20,
    target_macs: opt.TargetMacs = None,
    nuclear_weight: Annotated[
        float, typer.Option(help="Weight of the nuclear norm's subgradient, as in 3e-4.")
    ] = 0.0,
    stride_1_only: opt.Stride1Only = False,
    rank_multiple: RankMultiple = "auto",
    epochs: Epochs = None,
    batch: measuring.Batch = None,
    lr: LearningRate = None,
    weight_decay: WeightDecay = None,
    seed: opt.Seed = 0,
    no_augment: NoAugment = False,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    workers: Decoders = None,
    device: opt.Device = "auto",
    bf16: Bf16 = False,
    compile_network: Compile = False,
    cuda_graphs: CudaGraphs = False,
    sync_bn: SyncBn = False,
    save_seconds: SaveSeconds = 60.0,
    tensorboard: TensorBoard = False,
    restart: Restart = False,
    is_dry: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Train a network; with --trp or --nuclear-weight, towards low rank.

    Writes last.safetensors and best.safetensors, which decompose reads, and metrics.jsonl. The same
    command resumes a run that was stopped, and ends with the same weights, bit by bit. To train in
    several processes: torchrun --nproc-per-node N -m trpexport train ...

    Example:
        trpexport train --arch resnet20 --data cifar10:DIR --trp -o run
    """
    refuse_idle(context, *_IDLE)
    from trpexport.training.settings import Compute, LowRank
    from trpexport.training.train import planned
    from trpexport.training.train import train as run

    low_rank = None
    if not (trp or nuclear_weight):
        idle = ("scheme", "trp_period", "stride_1_only", "rank_multiple")
        ways = "--trp or --nuclear-weight"
        refuse_typed(context, idle, f"without {ways}", add=ways)
    else:
        low_rank = LowRank(
            scheme=scheme,
            energy=trp_energy if trp else None,
            period=trp_period,
            nuclear_weight=nuclear_weight,
            target_macs=target_macs,
            stride_1_only=stride_1_only,
            rank_multiple=multiple(rank_multiple),
        )
    settings = run_settings(
        data, recipe, epochs, batch, lr, weight_decay, seed, no_augment, size, resize,
        Compute(
            device, bf16, compile_network, sync_bn, save_seconds, workers, cuda_graphs
        ),
    )  # fmt: skip
    how: dict[str, Any] = {"init": init, "preprocessing": normalisation(mean, std)}
    if is_dry:
        facts = planned(arch, settings, low_rank, out, **how, restart=restart)
        dry_training(context, facts, out)
        return
    watcher = watching(out, tensorboard)
    tell(lambda: standing(context, out))
    facts = run(
        arch, settings, low_rank, out, **how,
        watcher=watcher, restart=restart, should_stop=is_asked,
    )  # fmt: skip
    finish(context, facts, out, "decompose", as_json)


def run_settings(
    data: str,
    recipe: str,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    weight_decay: float | None,
    seed: int,
    no_augment: bool,
    size: str | None,
    resize: int | None,
    compute: Compute,
) -> RunSettings:
    """Return what train and finetune were told in the same words."""
    from trpexport.training.recipe import RECIPES
    from trpexport.training.settings import RunSettings

    return RunSettings(
        data=data,
        recipe=RECIPES[recipe].changed(
            epochs=epochs, batch_size=batch, lr=lr, weight_decay=weight_decay
        ),
        seed=seed,
        augment=not no_augment,
        size=_edge(size),
        resize=resize,
        compute=compute,
    )


def _edge(size: str | None) -> int | None:
    """Return the height and width of the input that was typed; None where it was not.

    Raises:
        TrpexportError: they differ.
    """
    found = read_size(size)
    if found is None:
        return None
    if found[0] != found[1]:
        raise TrpexportError(f"--size {size} is not square: training cuts squares, as in 224")
    return found[0]


def watching(out: Path, tensorboard: bool) -> Watcher:
    """Return who shows this process's run, and lets it be stopped."""
    from trpexport.training.run_directory import TENSORBOARD
    from trpexport.training.watching import TensorBoard as Board
    from trpexport.training.watching import Watchers

    from .watch import EpochBar, EpochLines, Stoppable

    if not is_first():
        return Stoppable()
    shown = EpochBar() if watched() else EpochLines()
    boards = [Board(out / TENSORBOARD)] if tensorboard else []
    return Watchers([shown, Stoppable(), *boards])


def is_first() -> bool:
    """Whether this process is the first of a distributed run, which speaks; or the only one."""
    return os.environ.get("RANK", "0") == "0"


def standing(context: typer.Context, out: Path) -> str:
    """Say how much of an interrupted run stands, and the command that goes on with it."""
    from trpexport.errors import TrainingError
    from trpexport.training.run_directory import RunDirectory

    try:
        state = RunDirectory(out).read_state()
    except TrainingError:
        state = None
    if state is None:
        return f"nothing of the run is saved in {out} yet"
    epochs, steps = (f"{n} {what}{'' if n == 1 else 's'}" for n, what in _done(state))
    command = retyped(context, drop=("restart",))
    return f"{epochs} and {steps} of the next are saved in {out}; go on with: {command}"


def _done(state: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Return how far a state has come."""
    yield int(state.get("epoch", 0)), "epoch"
    yield int(state.get("step", 0)), "step"


def finish(
    context: typer.Context, facts: dict[str, object], out: Path, then: str, as_json: bool
) -> None:
    """Say what came of a run and what to do next; the first worker speaks."""
    from trpexport.report.blocks import Text
    from trpexport.report.views.training import training_view

    from .console import show
    from .watch import epoch_text

    if not is_first():
        return
    command = other(context, then, out / "last.safetensors", keep=("model", *_SHARED))
    if as_json:
        show_json({"run": str(out), **facts, "next": [command]})
        return
    show(
        Text(f"{epoch_text(facts)} on {facts['test_images']} images"),
        *training_view(facts),
        *next_steps([("make an ONNX file of it:", command)]),
    )
