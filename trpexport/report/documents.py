"""What a page is made of: bundles and records, read as data of strangers and checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpexport import bundle
from trpexport.errors import ModelError, TrpexportError
from trpexport.files import read_json
from trpexport.measure.records import read_record
from trpexport.plan import Plan, read_plan
from trpexport.report.shapes import (
    BENCH,
    MANIFEST,
    METRICS,
    PROFILE,
    REPORT,
    SENSITIVITY,
    is_gate,
    is_sweep,
)
from trpexport.schema import check, fits, parse_json, read_text

_METRICS = "metrics.jsonl"
_MAX_BYTES = 2**26  # of metrics: a line an epoch


@dataclass(frozen=True)
class Bundle:
    """An export: what its files say of it.

    Attributes:
        path: its directory.
        manifest: content of ``manifest.json``.
        report: content of ``report.json``.
        plan: what happened to each layer; None where nothing was decomposed.
    """

    path: Path
    manifest: Mapping[str, Any]
    report: Mapping[str, Any]
    plan: Plan

    @property
    def label(self) -> str:
        """What it is called."""
        return self.path.resolve().name


@dataclass(frozen=True)
class Record:
    """What a command wrote of its results.

    Attributes:
        path: its file.
        kind: what it is of: ``bench``, ``gate``, ``profile``, ``sensitivity``, ``sweep`` or
            ``training``.
        facts: its content; of training an object with ``epochs``.
    """

    path: Path
    kind: str
    facts: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What it is called."""
        place = self.path.resolve()
        return place.parent.name if place.name == _METRICS else place.stem


Document = Bundle | Record


def read_document(path: Path) -> Document:
    """Read a bundle, a training run, or the record of a bench, a profile or a gate.

    Raises:
        ModelError: a bundle is damaged, or of another version.
        TrpexportError: it can't be read, is nothing of the kind, or is damaged.
    """
    if bundle.is_directory(path):
        if not bundle.is_bundle(path) and (path / _METRICS).is_file():
            return _training(path / _METRICS)
        return read_bundle(path)
    return _training(path) if path.suffix == ".jsonl" else _record(path)


def read_bundle(path: Path) -> Bundle:
    """Read what the files of a bundle say of it.

    Raises:
        ModelError: it is no bundle, was changed after the export, or is of another version.
        PlanError: its plan is damaged.
    """
    manifest = bundle.read_manifest(path)
    if not fits(manifest, MANIFEST):
        raise _damaged(path / bundle.MANIFEST)
    place = path / bundle.REPORT
    try:
        report = read_json(place)
    except OSError as error:
        raise ModelError(f"can't read {place}: {error.strerror or error}") from None
    except ValueError:
        raise _damaged(place) from None
    version = report.get("schema_version") if isinstance(report, dict) else None
    if isinstance(version, int) and version != bundle.REPORT_VERSION:
        raise ModelError(
            f"{place} has the schema version {version}, this trpexport reads "
            f"{bundle.REPORT_VERSION}: export the bundle again"
        )
    try:
        check(report, REPORT)
        _check_layers(report)
    except ValueError:
        raise _damaged(place) from None
    return Bundle(path, manifest, report, read_plan(path / bundle.PLAN))


def _check_layers(report: Mapping[str, Any]) -> None:
    """Refuse a calibration of layers that the network does not have.

    Raises:
        ValueError: it is one.
    """
    calibrated = report["calibration"] or {"layers": ()}
    names = {layer["name"] for layer in calibrated["layers"]}
    if names - {layer["name"] for layer in report["layers"]}:
        raise ValueError("a layer that is none")


def _damaged(place: Path) -> ModelError:
    return ModelError(f"{place} is damaged: export the bundle again")


def _record(path: Path) -> Record:
    try:
        facts = parse_json(read_text(path))
    except OSError as error:
        raise TrpexportError(f"can't read {path}: {error.strerror or error}") from None
    except ValueError:
        raise _unknown(path) from None
    kind = facts.get("kind") if isinstance(facts, dict) else None
    if not isinstance(kind, str) or kind not in _SHAPES:
        raise _unknown(path)
    if kind == "bench":
        facts = read_record(path)
    try:
        check(facts, _SHAPES[kind])
    except ValueError:
        raise TrpexportError(f"{path} is damaged: measure again") from None
    return Record(path, kind, facts)


def _training(path: Path) -> Record:
    try:
        lines = read_text(path, _MAX_BYTES).splitlines()
        epochs = [parse_json(line) for line in lines if line.strip()]
        check(epochs, [METRICS])
        if not epochs:
            raise ValueError("no epoch")
    except OSError as error:
        raise TrpexportError(f"can't read {path}: {error.strerror or error}") from None
    except ValueError:
        raise TrpexportError(
            f"{path} holds no metrics of a training run: name a run's directory, or its {_METRICS}"
        ) from None
    return Record(path, "training", {"epochs": epochs})


def _unknown(path: Path) -> TrpexportError:
    return TrpexportError(
        f"{path} is neither a bundle nor a record: name a bundle's directory, a training run's, or "
        "JSON that a bench, a profile or a gate wrote"
    )


_SHAPES: Mapping[str, Any] = {
    **{"bench": BENCH, "profile": PROFILE, "gate": is_gate},
    "sensitivity": SENSITIVITY,
    "sweep": is_sweep,
}
