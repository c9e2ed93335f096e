"""Parameter names: the prefixes that wrappers leave in them, and comparing two sets of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from trpexport.checkpoints.wording import shorten
from trpexport.errors import ArchitectureError

Shapes = Mapping[str, tuple[int, ...]]

MAX_TENSORS = 10_000  # a ResNet-1202 has 7,212
_MAX_PREFIX = 8  # segments that all names may begin with

# What DataParallel, torch.compile, FSDP and activation checkpointing put into names, anywhere.
_WRAPPER_SEGMENTS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
# What a training class (Lightning's, for one) calls the network beside its losses and metrics.
_HOLDERS = ("model", "net", "network", "backbone")


@dataclass(frozen=True)
class Reading:
    """One way to read the names in a file.

    Attributes:
        names: a network's name for each tensor, and the file's.
        note: what was changed, for the reader; None where nothing was.
    """

    names: Mapping[str, str]
    note: str | None = None

    def shapes(self, file_shapes: Shapes) -> Shapes:
        """Return the file's shapes by the names of this reading."""
        return {name: file_shapes[old] for name, old in self.names.items()}

    def renamed(self, rename: Callable[[str], str], why: str) -> Reading | None:
        """Return this reading with every name changed, or None where two become one."""
        names = {rename(name): old for name, old in self.names.items()}
        if len(names) < len(self.names):
            return None
        changed = [name for name in self.names if rename(name) != name]
        if not changed:
            return self
        note = f"{why} {changed[0]} as {rename(changed[0])}"
        if len(changed) > 1:
            note += f", and {len(changed) - 1} more likewise"
        return self.then(names, note)

    def then(self, names: Mapping[str, str], note: str) -> Reading:
        """Return a reading with other names, its note after this one's."""
        return Reading(names, f"{self.note}; {note}" if self.note else note)


@dataclass(frozen=True)
class KeyDifference:
    """How a file's names and shapes differ from a network's.

    ``bool()`` says whether they do. Batch counters (``num_batches_tracked``), which older files
    lack and inference ignores, never count.

    Attributes:
        missing: names that the network has and the file lacks.
        unexpected: names that the file has and the network lacks.
        mismatched: (name, the network's shape, the file's shape) where these differ.
        matching: number of names whose shapes agree.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    matching: int

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    @property
    def share(self) -> float:
        """Share of agreeing names and shapes, 1 where all agree, of the larger of the two sets."""
        both = self.matching + len(self.mismatched)
        return self.matching / max(1, both + max(len(self.missing), len(self.unexpected)))

    def __str__(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"the file lacks {shorten(list(self.missing))}")
        if self.unexpected:
            parts.append(f"the network has no {shorten(list(self.unexpected))}")
        if self.mismatched:
            shapes = [
                f"{name} is {_text(actual)} in the file and {_text(expected)} in the network"
                for name, expected, actual in self.mismatched
            ]
            parts.append(shorten(shapes))
        return "; ".join(parts) or "no difference"


def key_difference(expected: Shapes, actual: Shapes) -> KeyDifference:
    """Compare a network's names and shapes (``expected``) with a file's (``actual``)."""
    wanted = {name: shape for name, shape in expected.items() if not _is_counter(name)}
    found = {name: shape for name, shape in actual.items() if not _is_counter(name)}
    both = [name for name in wanted if name in found]
    mismatched = tuple(
        (name, wanted[name], found[name]) for name in both if wanted[name] != found[name]
    )
    return KeyDifference(
        missing=tuple(name for name in wanted if name not in found),
        unexpected=tuple(name for name in found if name not in wanted),
        mismatched=mismatched,
        matching=len(both) - len(mismatched),
    )


def readings(names: Collection[str]) -> Iterator[Reading]:
    """Yield the ways to read a file's names, the most literal first.

    A network may truly have a submodule called ``module`` or ``model``, so nothing is stripped for
    good: whoever knows the network takes the first reading that fits it. They are: as the names
    stand; without the segments of wrappers, anywhere; without the segments that all names start
    with; without ``model`` anywhere; and only what lies under ``model.``, ``net.``, ...

    Raises:
        ArchitectureError: two names become one when the wrappers' segments are stripped.
    """
    literal = Reading({name: name for name in names})
    yield literal
    bare = Reading(_stripped(names), f"stripped {_found(names)} from the names")
    if set(bare.names) != set(names):
        yield bare
    else:
        bare = literal
    yield from _without_common_prefix(bare)
    unmodelled = bare.renamed(lambda name: _without({"model"}, name), "read")
    if unmodelled is not None and unmodelled is not bare:
        yield unmodelled
    yield from _parts(bare)


def nearest_reading(
    candidates: Iterable[Reading], file_shapes: Shapes, expected: Shapes
) -> tuple[Reading, KeyDifference]:
    """Return the first reading that fits a network's names and shapes, else the nearest one."""
    best: tuple[Reading, KeyDifference] | None = None
    for reading in candidates:
        difference = key_difference(expected, reading.shapes(file_shapes))
        if best is None or not difference or difference.share > best[1].share:
            best = (reading, difference)
        if not difference:
            break
    if best is None:
        raise ValueError("there is no reading to compare")
    return best


def _stripped(names: Collection[str]) -> dict[str, str]:
    """Return the names without the wrappers' segments, each with the one it comes from."""
    stripped: dict[str, str] = {}
    for name in names:
        new = _without(_WRAPPER_SEGMENTS, name)
        if new in stripped:
            raise ArchitectureError(
                f"{stripped[new]} and {name} are both {new} without their prefix: save one set "
                "of weights alone"
            )
        stripped[new] = name
    return stripped


def _found(names: Collection[str]) -> str:
    segments = dict.fromkeys(part for name in names for part in name.split("."))
    return ", ".join(repr(f"{part}.") for part in segments if part in _WRAPPER_SEGMENTS)


def _without_common_prefix(reading: Reading) -> Iterator[Reading]:
    names = dict(reading.names)
    prefix = ""
    for _ in range(_MAX_PREFIX):
        firsts = {name.partition(".")[0] for name in names}
        if len(firsts) != 1 or any("." not in name for name in names):
            return
        prefix += f"{firsts.pop()}."
        names = {name.partition(".")[2]: old for name, old in names.items()}
        yield reading.then(names, f"stripped {prefix!r} from the names")


def _parts(reading: Reading) -> Iterator[Reading]:
    """Yield what lies under one holder's name, where other things lie beside it."""
    for holder in _HOLDERS:
        prefix = f"{holder}."
        inside = {
            name.removeprefix(prefix): old
            for name, old in reading.names.items()
            if name.startswith(prefix)
        }
        outside = [name for name in reading.names if not name.startswith(prefix)]
        if inside and outside:
            part = reading.then(
                inside, f"took only the names under {prefix!r}, ignored {shorten(outside)}"
            )
            yield part
            yield from _without_common_prefix(part)


def _without(segments: Collection[str], name: str) -> str:
    """Return ``name`` without these segments, or as it is where nothing would be left."""
    return ".".join(part for part in name.split(".") if part not in segments) or name


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
