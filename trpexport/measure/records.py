"""What becomes of a bench's record afterwards: read again, priced in MACs, tabled, compared."""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trpexport.errors import TrpexportError
from trpexport.files import read_json
from trpexport.measure.bench import SCHEMA_VERSION
from trpexport.measure.machine import MACHINE, fingerprint
from trpexport.measure.settings import BenchSettings, ModelFile
from trpexport.measure.statistics import Verdict
from trpexport.onnxfile.counting import count_onnx
from trpexport.onnxfile.external_data import external_paths
from trpexport.onnxfile.recognition import is_ort
from trpexport.schema import check, each, not_negative, positive, text, whole

Record = Mapping[str, Any]

# The settings under which times can be compared; data and seed only choose the values.
_DECISIVE = (
    *("provider", "provider_options", "threads", "batch", "shapes"),
    *("graph_optimization", "allow_spinning", "io_binding"),
)
_COLUMNS = (
    *("threads", "label", "sha256", "file_bytes"),
    *("seconds.median", "seconds.mad", "seconds.min", "seconds.p90", "seconds.p95", "seconds.p99"),
    *("throughput_per_second", "session_seconds", "first_run_seconds", "runs", "rounds"),
    *("ratio.to", "ratio.mid", "ratio.low", "ratio.high", "ratio.verdict"),
    *("macs", "macs_ratio", "efficiency"),
    *("memory.baseline_bytes", "memory.with_arena_bytes", "memory.without_arena_bytes"),
)
_OPTIONAL = ("memory", "ratio")  # parts that may be None

_MEMORY = ("baseline_bytes", "with_arena_bytes", "without_arena_bytes")
_ENTRY = {
    **{"label": text, "sha256": text, "file_bytes": whole(0), "runs": whole(1), "rounds": whole(1)},
    "seconds": {"median": positive}
    | dict.fromkeys(("mad", "min", "p90", "p95", "p99"), not_negative),
    **dict.fromkeys(
        ("throughput_per_second", "session_seconds", "first_run_seconds"), not_negative
    ),
    "ratio": (
        None,
        {"to": text, "verdict": text} | dict.fromkeys(("mid", "low", "high"), not_negative),
    ),
    "memory": (None, dict.fromkeys(_MEMORY, (None, not_negative))),
    **dict.fromkeys(("macs", "macs_ratio", "efficiency"), (None, not_negative)),
}
_RECORD = {
    "machine": MACHINE,
    "settings": each(lambda value: True),
    "results": [{"threads": whole(1), "models": [_ENTRY]}],
}


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a bench.

    Raises:
        TrpexportError: the file can't be read, is no such record, or is of a later version.
    """
    try:
        record = read_json(path)
    except OSError as error:
        raise TrpexportError(f"can't read {path}: {error.strerror or error}") from None
    except ValueError:
        raise _no_record(path) from None
    if not isinstance(record, dict) or record.get("kind") != "bench":
        raise _no_record(path)
    if record.get("schema_version") != SCHEMA_VERSION:
        raise TrpexportError(
            f"{path} has the schema version {record.get('schema_version')}, this trpexport reads "
            f"{SCHEMA_VERSION}: bench again, or use the trpexport that wrote it"
        )
    try:
        check(record, _RECORD)
        BenchSettings.from_json(record["settings"])
    except (ValueError, TrpexportError):
        raise TrpexportError(f"{path} is damaged: bench again") from None
    return record


def attach_costs(record: Record, models: Sequence[ModelFile]) -> dict[str, Any]:
    """Return the record of a bench with what its networks cost filled in.

    ``macs`` are those of one run, of all its images; ``macs_ratio`` is how many times fewer they
    are than the baseline's; ``efficiency`` is the measured speed-up over that: 1 if time is saved
    in step with arithmetic. The last two are None for the baseline, and where a network has
    operators whose MACs are not known, listed in ``uncounted``; of a file in ONNX Runtime's own
    format, which can't be counted, all are. Files with weights of their own are counted into
    ``file_bytes``.

    Args:
        record: what :func:`trpexport.measure.bench.bench` returned, here or elsewhere.
        models: the files that were benched, on this machine.

    Raises:
        ModelError: a network can't be read.
        MissingDependencyError: the package onnx is not installed.
    """
    priced = copy.deepcopy(dict(record))
    for result in priced["results"]:
        base = result["models"][0]
        for entry, model in zip(result["models"], models, strict=True):
            path = Path(model.path)
            files = [path, *external_paths(path)]
            entry["file_bytes"] = sum(file.stat().st_size for file in files)
            if is_ort(path):
                continue
            cost = count_onnx(path, shapes={k: tuple(v) for k, v in entry["inputs"].items()})
            entry["macs"] = cost.macs
            entry["uncounted"] = dict(cost.uncounted)
            is_counted = base["macs"] and not (entry["uncounted"] or base["uncounted"])
            if entry["ratio"] and cost.macs and is_counted:
                entry["macs_ratio"] = base["macs"] / cost.macs
                entry["efficiency"] = entry["ratio"]["mid"] / entry["macs_ratio"]
    return priced


def to_csv(record: Record) -> str:
    """Return the record as a table, one line a network and number of threads; SI units."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_row(threads, entry) for threads, entry in _entries(record))
    return table.getvalue()


@dataclass(frozen=True)
class Change:
    """How one network's time differs between two records.

    Attributes:
        label: what it is called in both.
        threads: number of threads.
        old_seconds: its median then.
        new_seconds: its median now.
        ratio: the former over the latter: above 1 is faster now.
        verdict: whether that says anything. Two benches at different times share no rounds, so
            the medians have to be further apart than the two spreads of single runs together.
        is_same_file: whether it is the same file byte by byte.
    """

    label: str
    threads: int
    old_seconds: float
    new_seconds: float
    ratio: float
    verdict: Verdict
    is_same_file: bool

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON-ready data."""
        return asdict(self)


def compare_records(old: Record, new: Record, *, allow_other_machine: bool = False) -> list[Change]:
    """Compare two records, network by network as they are called.

    Args:
        old: a record of earlier.
        new: a record of now.
        allow_other_machine: compare what different machines have measured.

    Raises:
        TrpexportError: the machines or decisive settings differ, or no network is in both.
    """
    if not allow_other_machine:
        differences = _differences(fingerprint(old["machine"]), fingerprint(new["machine"]))
        if differences:
            raise TrpexportError(
                f"the records are of different machines ({differences}): bench on the same one, "
                "or allow another machine",
                parameters=("allow_other_machine",),
            )
    differences = _differences(_decisive(old), _decisive(new))
    if differences:
        raise TrpexportError(
            f"the records are of different settings ({differences}): bench again with the same ones"
        )
    before = {(threads, entry["label"]): entry for threads, entry in _entries(old)}
    changes = [
        _change(threads, before[threads, entry["label"]], entry)
        for threads, entry in _entries(new)
        if (threads, entry["label"]) in before
    ]
    if not changes:
        labels = [sorted({entry["label"] for _, entry in _entries(r)}) for r in (old, new)]
        raise TrpexportError(
            f"the records have no network in common ({', '.join(labels[0])}; then "
            f"{', '.join(labels[1])}): bench files of the same names"
        )
    return changes


def _change(threads: int, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    before, after = old["seconds"]["median"], new["seconds"]["median"]
    noise = old["seconds"]["mad"] + new["seconds"]["mad"]
    verdict: Verdict = "no measurable difference"
    if abs(before - after) > noise:
        verdict = "faster" if after < before else "slower"
    return Change(
        label=new["label"],
        threads=threads,
        old_seconds=before,
        new_seconds=after,
        ratio=before / after,
        verdict=verdict,
        is_same_file=old["sha256"] == new["sha256"],
    )


def _decisive(record: Record) -> dict[str, Any]:
    """Return the settings of a record under which its times can be compared."""
    found = {name: record["settings"].get(name) for name in _DECISIVE}
    # What each network ran with stands beside its times.
    return found | {"graph_optimization": found["graph_optimization"] or "all"}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')}: {old[name]} and {new[name]}"
        for name in old
        if old[name] != new[name]
    )


def _entries(record: Record) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (number of threads, entry of a network)."""
    for result in record["results"]:
        for entry in result["models"]:
            yield result["threads"], entry


def _row(threads: int, entry: Mapping[str, Any]) -> list[Any]:
    row: list[Any] = [threads]
    for column in _COLUMNS[1:]:
        part, dot, key = column.partition(".")
        if dot and entry[part] is None and part in _OPTIONAL:
            row.append(None)
        else:
            row.append(entry[part][key] if dot else entry[part])
    return row


def _no_record(path: Path) -> TrpexportError:
    return TrpexportError(
        f"{path} is no record of a bench: bench again, and save what it returns as JSON"
    )
