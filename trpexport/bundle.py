"""The export directory: its file names, its place, and its manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trpexport.directories import check_directory, place_reserved, restore
from trpexport.directories import staged_directory as staged
from trpexport.errors import ModelError, OccupiedError, OutputError
from trpexport.files import read_json, sha256_of, write_json, writing
from trpexport.schema import MayLack, check, each, flag, not_negative, text, whole

MODEL = "model.onnx"
BASELINE = "baseline.onnx"
WEIGHTS = "model.safetensors"
PLAN = "plan.json"
GOLDEN = "golden.npz"
REPORT = "report.json"
MANIFEST = "manifest.json"

OPERATORS = "required_operators.config"

ORT = "ort"  # ONNX Runtime's own format, of MODEL; of a variant it is called int8-ort
FLOAT32 = "fp32"  # the precision of MODEL, beside which others may stand

SCHEMA_VERSION = 1
REPORT_VERSION = 3  # of the content of REPORT
_TOLERANCE = dict.fromkeys(("max_error", "rms_error", "agreement"), not_negative)
# What a manifest recommends of a session with one of the files, and what that was measured under.
SESSION = "session"
ADVICE = {
    "provider": text,
    "threads": whole(1),
    "options": {
        "graph_optimization": MayLack(text),
        **dict.fromkeys(("allow_spinning", "memory_pattern", "prepacking", "arena"), MayLack(flag)),
    },
}
_MANIFEST = {
    "files": each({"sha256": text}),
    SESSION: MayLack({"file": text, **ADVICE}),
    "baseline": MayLack((None, text)),
    "variants": MayLack(each({"file": text, "tolerance": _TOLERANCE})),
}


_FILES = {MODEL, f"{MODEL}.data", BASELINE, f"{BASELINE}.data", WEIGHTS, PLAN, GOLDEN, REPORT}
_FILES |= {OPERATORS}
_VARIANT = re.compile(r"model(\.(?P<precision>[a-z0-9-]+))?\.(?P<format>onnx|ort)(\.data)?")
_NAMED = 3  # files that a message names


def variant_name(precision: str) -> str:
    """Return what the file of a network in some precision is called."""
    return MODEL if precision == FLOAT32 else f"model.{precision}.onnx"


def label_of(file: Path) -> str:
    """Return what the file of a bundle is called: by its directory, as in ``DIR@int8``."""
    directory = file.resolve().parent.name
    if file.name == MODEL:
        return directory
    variant = _VARIANT.fullmatch(file.name)
    if variant is None:
        return file.name
    names = [variant["precision"], ORT if variant["format"] == ORT else None]
    return f"{directory}@{'-'.join(name for name in names if name)}"


def split_name(path: Path) -> tuple[Path, str] | None:
    """Return the bundle and the precision that a path names, as in ``DIR@int8``; None for a file.

    Raises:
        OutputError: as :func:`is_directory`.
    """
    if is_directory(path):
        return path, FLOAT32
    name, at, precision = path.name.rpartition("@")
    directory = path.parent / name
    return (directory, precision) if at and not path.exists() and is_directory(directory) else None


def locate(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the ONNX file that a path names, and the manifest of the bundle if it names one.

    Args:
        path: a bundle, a variant of one as in ``DIR@int8``, or a file, which is returned as it is.

    Raises:
        ModelError: a directory is no bundle, was changed after its export, or has no such variant.
    """
    named = split_name(path)
    if named is None:
        return path, None
    directory, precision = named
    manifest = read_manifest(directory)
    files = {FLOAT32: MODEL} | {
        name: str(variant["file"]) for name, variant in manifest.get("variants", {}).items()
    }
    if precision not in files:
        raise ModelError(
            f"{directory} has no variant {precision!r}: it has {', '.join(files)}; "
            "trpexport quantize adds others"
        )
    return directory / files[precision], manifest


def advice_of(manifest: Mapping[str, Any] | None, file: Path) -> dict[str, Any] | None:
    """Return what a bundle's manifest recommends of a session with one of its files.

    None for nothing, and where there is no manifest.
    """
    session = (manifest or {}).get(SESSION)
    if session is None or session["file"] != file.name:
        return None
    return {name: session[name] for name in ADVICE}


def is_bundle(directory: Path) -> bool:
    """Tell whether a directory is a bundle, damaged or not."""
    return (directory / MANIFEST).is_file()


def is_directory(path: Path) -> bool:
    """Tell whether a path is a directory, as a bundle is.

    One that a job was about to replace when it was killed is put back.

    Raises:
        OutputError: it can't be put back.
    """
    restore(path)
    return path.is_dir()


def other_files(directory: Path) -> list[str]:
    """Return the names of what lies in a bundle and was not written with it."""
    try:
        ours = _FILES | set(read_json(directory / MANIFEST)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        ours = _FILES
    return sorted(
        path.name
        for path in directory.iterdir()
        if not (path.name in ours | {MANIFEST} or _VARIANT.fullmatch(path.name))
        or (path.is_dir() and not path.is_symlink())
    )


@contextmanager
def reserved(target: Path, *, replace: bool = False) -> Iterator[None]:
    """Refuse a target as :func:`check_target`, and keep other jobs away while the block runs.

    Raises:
        OutputError: as there; or another process is making a bundle there.
    """
    check_target(target, replace=replace)
    with place_reserved(target):
        check_target(target, replace=replace)  # something may have been put back
        yield


@contextmanager
def staged_directory(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty directory that becomes the bundle ``target``, as the one of :mod:`.files`.

    Args:
        target: the directory to create.
        replace: allow an existing bundle at ``target`` to be replaced.

    Raises:
        OutputError: the place can't be written, is full, or holds something else; or another
            process is making a bundle there.
    """
    with (
        reserved(target, replace=replace),
        staged(
            target, replaceable=lambda directory: replace and _is_replaceable(directory)
        ) as staging,
    ):
        yield staging


def check_target(target: Path, *, replace: bool = False) -> None:
    """Refuse a target that can't be written, before any work is done.

    Raises:
        OccupiedError: ``target`` is a bundle that was not asked to be replaced.
        OutputError: it is a file, a directory that is no bundle, or a bundle with files of
            somebody else in it; or it can't be written.
    """
    with writing(target):
        if target.is_dir() and any(target.iterdir()):
            if not is_bundle(target):
                raise OutputError(f"{target} holds files that are no bundle: choose another place")
            if not replace:
                raise OccupiedError(f"{target} exists: choose another place, or have it replaced")
            if others := other_files(target):
                more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
                raise OutputError(
                    f"{target} holds files that are no part of the bundle "
                    f"({', '.join(others[:_NAMED])}{more}) and would be lost: move them, or choose "
                    "another place",
                    parameters=("out",),
                )
    check_directory(target, replaceable=is_bundle)


def _is_replaceable(directory: Path) -> bool:
    return is_bundle(directory) and not other_files(directory)


def write_manifest(directory: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a finished directory: ``facts``, then size and hash of every file."""
    hashes = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(directory.iterdir())
        if path.name != MANIFEST
    }
    write_json(
        directory / MANIFEST, {"schema_version": SCHEMA_VERSION, **dict(facts), "files": hashes}
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a bundle and check that every file is what it says.

    Raises:
        ModelError: ``directory`` is no bundle, or a file is missing or was changed.
    """
    path = directory / MANIFEST
    try:
        manifest = read_json(path)
        check(manifest, _MANIFEST)
        hashes = {Path(name): facts["sha256"] for name, facts in manifest["files"].items()}
        if any(name.name != str(name) for name in hashes):
            raise ValueError("a file outside of the bundle")
        variants = manifest.get("variants", {}).values()
        if any(Path(variant["file"]) not in hashes for variant in variants):
            raise ValueError("a variant without its file")
    except OSError:
        raise ModelError(
            f"{directory} is not a bundle: it has no {MANIFEST}; make one with trpexport decompose"
        ) from None
    except (ValueError, TypeError):
        raise ModelError(f"{path} is damaged: export the bundle again") from None
    for name, expected in hashes.items():
        file = directory / name
        if not file.is_file():
            raise ModelError(f"{directory} lacks {name}: export the bundle again")
        if sha256_of(file) != expected:
            raise ModelError(
                f"{file} was changed after the export (its SHA-256 is not the manifest's): "
                "export the bundle again"
            )
    return dict(manifest)
