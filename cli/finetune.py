"""``trpexport finetune``: train a decomposed network further, its factors staying factors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import measuring
from . import options as opt
from .console import say
from .eval import Mean, Resize, Size, Std
from .idle import refuse_typed
from .interrupts import is_asked, tell
from .pixels import normalisation
from .train import (
    Bf16,
    Compile,
    CudaGraphs,
    Data,
    Decoders,
    Epochs,
    LearningRate,
    NoAugment,
    Recipe,
    Restart,
    RunOut,
    SaveSeconds,
    SyncBn,
    TensorBoard,
    WeightDecay,
    finish,
    is_first,
    run_settings,
    standing,
    watching,
)

_NOBODY = "none"  # typed as a teacher


def finetune(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A bundle of decompose, or a checkpoint.")
    ],
    data: Data,
    out: RunOut = Path("finetuned"),
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Network to learn from as well (distillation), or none. By default the original, "
            "if it is in the bundle or beside it and there is no --loss.",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Temperature of the distillation.")] = 4.0,
    teacher_weight: Annotated[
        float, typer.Option(help="Weight of the distillation in the loss, from 0 to 1.")
    ] = 0.5,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Your own loss, a function of the network's outputs and the labels, as "
            "package.module:function. Without labels, the outputs of --teacher are learnt."
        ),
    ] = None,
    recipe: Recipe = "finetune",
    model: opt.Model = None,
    unsafe_pickle: opt.UnsafePickle = False,
    epochs: Epochs = None,
    batch: measuring.Batch = None,
    lr: LearningRate = None,
    weight_decay: WeightDecay = None,
    seed: opt.Seed = 0,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    workers: Decoders = None,
    no_augment: NoAugment = False,
    device: opt.Device = "auto",
    bf16: Bf16 = False,
    compile_network: Compile = False,
    cuda_graphs: CudaGraphs = False,
    sync_bn: SyncBn = False,
    save_seconds: SaveSeconds = 60.0,
    tensorboard: TensorBoard = False,
    restart: Restart = False,
    as_json: opt.Json = False,
) -> None:
    """Train a decomposed network further; its factors stay factors.

    Writes last.safetensors and best.safetensors, which export reads, and metrics.jsonl. Needs
    images with classes, or a --loss of your own; without labels, the teacher's outputs are
    learnt. The same command resumes a run that was stopped.

    Example:
        trpexport finetune out --data cifar10:DIR
        trpexport finetune out --data cifar10:DIR --teacher network.pth
    """
    learnt = _teacher(context, source, teacher, has_loss=loss is not None)
    from trpexport.training.finetune import finetune as run
    from trpexport.training.settings import Compute

    settings = run_settings(
        data, recipe, epochs, batch, lr, weight_decay, seed, no_augment, size, resize,
        Compute(
            device, bf16, compile_network, sync_bn, save_seconds, workers, cuda_graphs
        ),
    )  # fmt: skip
    tell(lambda: standing(context, out))
    facts = run(
        source,
        settings,
        out,
        teacher=learnt,
        temperature=temperature,
        teacher_weight=teacher_weight,
        loss=loss,
        model=model,
        unsafe_pickle=unsafe_pickle,
        preprocessing=normalisation(mean, std),
        watcher=watching(out, tensorboard),
        restart=restart,
        should_stop=is_asked,
        announce=_announce if is_first() else None,
    )
    finish(context, facts, out, "export", as_json)


def _announce(line: str) -> None:
    say(f"- {line}")


def _teacher(
    context: typer.Context, source: Path, typed: Path | None, *, has_loss: bool
) -> str | Path | None:
    """Return whose answers are learnt.

    Raises:
        TrpexportError: nobody's, and an option was typed that says how.
    """
    from trpexport.training.teachers import ORIGINAL, originals

    if typed is not None and str(typed) != _NOBODY:
        return typed
    if typed is None and not has_loss and any(originals(source)):
        return ORIGINAL
    where = "beside --teacher none" if typed is not None else "without --teacher"
    refuse_typed(context, ("temperature", "teacher_weight"), where, add="--teacher NETWORK")
    return ORIGINAL if typed is None else None
