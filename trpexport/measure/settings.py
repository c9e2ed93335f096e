"""What is benched and how: the settings of one bench, and the files that its models are in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from trpexport.bundle import ADVICE, MODEL, advice_of, label_of, locate
from trpexport.errors import ModelError, TrpexportError
from trpexport.measure.timing import Method, WarmUp
from trpexport.runtime.providers import NO_OPTIONS, PROVIDERS, Options, check_options
from trpexport.runtime.session_options import GRAPH_OPTIMIZATIONS, VARIED, recommended
from trpexport.schema import MayLack, check, each, flag, number, text, whole
from trpexport.tensors import NO_SHAPES, Shape, Shapes

_BASELINE = "baseline"  # the manifest's key for a file with the network as it was
_SHAPES = each([whole(1)])
_SETTINGS = {
    "models": [
        {"path": text, "label": text, "shapes": MayLack(_SHAPES), "advice": MayLack(ADVICE)}
    ],
    "provider_options": each(text),
    "threads": [whole(1)],
    "shapes": _SHAPES,
} | {
    name: MayLack(shape)
    for name, shape in {
        **{"provider": text, "graph_optimization": (None, text)},
        **dict.fromkeys(("min_time", "max_time", "warmup_seconds"), number),
        **dict.fromkeys(("io_binding", "memory", "keep_samples"), flag),
        **{"batch": (None, whole(1)), "allow_spinning": (None, flag), "data": (None, text)},
        **{"min_runs": whole(1), "seed": whole(0)},
    }.items()
}


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file to bench.

    Attributes:
        path: the file.
        label: what it is called in reports.
        shapes: whole input shapes by name, of this network alone; they go before the bench's.
        advice: what its bundle recommends of a session, with the provider and the number of
            threads that this holds for; None for nothing.
    """

    path: str
    label: str
    shapes: Shapes = field(default_factory=dict)
    advice: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        advice = {} if self.advice is None else {"advice": dict(self.advice)}
        return {"path": self.path, "label": self.label, "shapes": _lists(self.shapes), **advice}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFile:
        """Return what :meth:`to_json` wrote; records of earlier versions have no shapes."""
        return cls(**{**data, "shapes": _tuples(data.get("shapes", {}))})


@dataclass(frozen=True)
class BenchSettings:
    """What one bench measures.

    Attributes:
        models: the files, the first of which is the baseline of all ratios.
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`.
        provider_options: the provider's options.
        threads: numbers of threads to measure with, one after the other.
        batch: images at a time; None takes what the file says, 1 where it leaves it open.
        shapes: whole input shapes by name, for other dynamic dimensions; of networks that are
            made for different sizes, for those whose inputs can have them.
        min_time: least number of seconds that each model is timed for.
        min_runs: least number of timed runs of each model.
        max_time: largest number of seconds that each model is timed for on a machine so busy that
            speed-ups are not known to 5 % earlier.
        warmup_seconds: longest time to wait until a model's run time is steady.
        graph_optimization: a name in
            :data:`trpexport.runtime.session_options.GRAPH_OPTIMIZATIONS`; None for what a bundle
            recommends, else ``all``.
        allow_spinning: whether waiting threads keep their cores busy; None leaves it to ONNX
            Runtime, which allows it.
        io_binding: keep inputs and outputs on the provider's device, where it has one.
        data: a ``.npy`` or ``.npz`` file with real inputs; None draws them.
        seed: of the inputs that are drawn, of the order of the models, and of the bootstrap.
        memory: measure peak memory too, in processes of its own.
        keep_samples: keep every timed run in the record.
    """

    models: tuple[ModelFile, ...]
    provider: str = "cpu"
    provider_options: Options = field(default_factory=lambda: NO_OPTIONS)
    threads: tuple[int, ...] = (1,)
    batch: int | None = None
    shapes: Shapes = field(default_factory=lambda: NO_SHAPES)
    min_time: float = 1.0
    min_runs: int = 30
    max_time: float = 30.0
    warmup_seconds: float = 10.0
    graph_optimization: str | None = None
    allow_spinning: bool | None = None
    io_binding: bool = True
    data: str | None = None
    seed: int = 0
    memory: bool = True
    keep_samples: bool = False

    def __post_init__(self) -> None:
        """Refuse what can be told to be wrong here, also for a bench that runs elsewhere.

        Raises:
            TrpexportError: a setting can't be used.
        """
        if not self.models:
            raise TrpexportError("there is nothing to bench: name an ONNX file or a bundle")
        if self.data is not None and self.shapes:
            raise TrpexportError(
                "data bring shapes of their own: leave the others out", parameters=("shapes",)
            )
        check_options(PROVIDERS[self.provider], self.provider_options)
        for name, value, least in (
            ("batch", self.batch, 1),
            ("min_time", self.min_time, 0),
            ("min_runs", self.min_runs, 1),
            ("max_time", self.max_time, 0),
            ("warmup_seconds", self.warmup_seconds, 0),
            ("seed", self.seed, 0),
            ("threads", min(self.threads, default=0), 1),
        ):
            if value is not None and not least <= value < math.inf:
                raise TrpexportError(
                    f"{name} can't be {value}: choose {least} or more", parameters=(name,)
                )
        if self.graph_optimization not in (None, *GRAPH_OPTIMIZATIONS):
            raise TrpexportError(
                f"unknown graph optimization {self.graph_optimization!r}: "
                f"choose from {', '.join(GRAPH_OPTIMIZATIONS)}"
            )

    def session(self, model: ModelFile, threads: int) -> dict[str, Any]:
        """Return what is not ONNX Runtime's default of a network's session: what was recommended.

        What was asked for goes before it.
        """
        asked = [name for name in VARIED if getattr(self, name, None) is not None]
        return recommended(model.advice, self.provider, threads, asked)

    @property
    def method(self) -> Method:
        """How runs are timed."""
        return Method(
            min_seconds=self.min_time,
            min_runs=self.min_runs,
            max_seconds=self.max_time,
            warm_up=WarmUp(max_seconds=self.warmup_seconds),
            seed=self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-ready data."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        return data | {
            "models": [model.to_json() for model in self.models],
            "provider_options": dict(self.provider_options),
            "threads": list(self.threads),
            "shapes": _lists(self.shapes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BenchSettings:
        """Return the settings that :meth:`to_json` wrote.

        Raises:
            TrpexportError: the data are of something else, or a setting can't be used.
        """
        try:
            check(data, _SETTINGS)
            return cls(
                **{
                    **data,
                    "models": tuple(map(ModelFile.from_json, data["models"])),
                    "provider_options": dict(data["provider_options"]),
                    "threads": tuple(data["threads"]),
                    "shapes": _tuples(data["shapes"]),
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise TrpexportError(
                "these settings of a bench are damaged: run the bench again"
            ) from None


def _lists(shapes: Shapes) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}


def _tuples(shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    return {name: tuple(shape) for name, shape in shapes.items()}


def find_models(paths: Sequence[str | Path]) -> tuple[ModelFile, ...]:
    """Return the ONNX files that a user means by files and bundles.

    A bundle stands for its network, and ``DIR@int8`` for that in another precision; a bundle alone
    whose manifest names a baseline stands for two, the baseline first.

    Args:
        paths: ONNX files, and directories that are bundles.

    Raises:
        ModelError: a directory is no bundle, was changed after its export, or names a baseline
            that is missing.
    """
    found: list[Path] = []
    advice: dict[Path, Mapping[str, Any]] = {}
    for path in map(Path, paths):
        file, manifest = locate(path)
        baseline = (manifest or {}).get(_BASELINE)
        if baseline is not None and len(paths) == 1 and file.name == MODEL:
            if not (path / str(baseline)).is_file():
                raise ModelError(
                    f"{path} lacks its baseline {baseline}: export the bundle again, or name the "
                    f"baseline, as in trpexport bench base.onnx {path}"
                )
            found.append(path / str(baseline))
        found.append(file)
        if (found_advice := advice_of(manifest, file)) is not None:
            advice[file] = found_advice
    return tuple(
        ModelFile(str(path), label, advice=advice.get(path))
        for path, label in zip(found, _labels(found), strict=True)
    )


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return what files are called: a bundle by its directory; by the whole path if need be."""
    short = [label_of(path) for path in paths]
    count = Counter(short)
    return [
        label if count[label] == 1 else str(path) for path, label in zip(paths, short, strict=True)
    ]
