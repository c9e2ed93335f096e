"""The export directory: its file names, how it appears whole or not at all, and its manifest."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trpexport.errors import ModelError, OutputError

MODEL = "model.onnx"
BASELINE = "baseline.onnx"
WEIGHTS = "model.safetensors"
PLAN = "plan.json"
GOLDEN = "golden.npz"
REPORT = "report.json"
MANIFEST = "manifest.json"

SCHEMA_VERSION = 1


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON; NaN and infinity are refused, since JSON has neither."""
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def staged_directory(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty directory that becomes ``target`` when the block ends without an error.

    It is made beside the target, so that the last step is a rename on one file system. On an
    error nothing is left, and what stood at ``target`` is untouched.

    Args:
        target: the directory to create.
        replace: allow an existing bundle at ``target`` to be replaced.

    Raises:
        OutputError: the place can't be written, is full, or holds something else.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - keep symbolic links as they are
    check_target(target, replace=replace)
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        _swap(staging, target)
    except OSError as error:
        raise _output_error(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(target: Path, *, replace: bool = False) -> None:
    """Refuse a target that can't be written, before any work is done.

    Raises:
        OutputError: ``target`` is a file, a directory that is no bundle, or an existing bundle
            that was not asked to be replaced; or its parent can't be written.
    """
    if target.is_dir():
        if any(target.iterdir()):
            if not (target / MANIFEST).is_file():
                raise OutputError(
                    f"{target} holds files that are no bundle: choose another place with -o"
                )
            if not replace:
                raise OutputError(
                    f"{target} exists: add --force to replace it, or choose another place with -o"
                )
    elif target.exists() or target.is_symlink():
        raise OutputError(f"{target} is not a directory: choose another place with -o")
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"can't write {target}: {parent} is not a directory")
    try:  # permissions do not tell the whole story: a disk may be read-only, or no disk at all
        Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent)).rmdir()
    except OSError as error:
        raise _output_error(target, error) from error


def write_manifest(directory: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a finished directory: ``facts``, then size and hash of every file."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(directory.iterdir())
        if path.name != MANIFEST
    }
    write_json(
        directory / MANIFEST, {"schema_version": SCHEMA_VERSION, **dict(facts), "files": files}
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a bundle and check that every file is what it says.

    Raises:
        ModelError: ``directory`` is no bundle, or a file is missing or was changed.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        hashes = {Path(name): str(facts["sha256"]) for name, facts in manifest["files"].items()}
        if any(name.name != str(name) for name in hashes):
            raise ValueError("a file outside of the bundle")
    except OSError:
        raise ModelError(
            f"{directory} is not a bundle: it has no {MANIFEST}; make one with trpexport decompose"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
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


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``; an existing one comes back if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    aside = staging.with_suffix(".old")
    target.rename(aside)
    try:
        staging.rename(target)
    except OSError:
        with suppress(OSError):
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _output_error(target: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"can't write {target}: no space left there; free some and run again")
    return OutputError(f"can't write {target}: {error.strerror or error}")
