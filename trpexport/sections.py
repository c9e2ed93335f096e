"""Sections of ``trpexport.toml``, or of ``pyproject.toml`` under ``tool.trpexport``."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from trpexport.errors import TrpexportError

OWN_FILE, PROJECT_FILE = "trpexport.toml", "pyproject.toml"
_OUTER = {OWN_FILE: (), PROJECT_FILE: ("tool", "trpexport")}


def read_section(
    name: str, config: Path | None = None, *, beside: Collection[str] = ()
) -> tuple[Mapping[str, Any], str]:
    """Return a section, empty if there is none, and what to call its file.

    Args:
        name: the section's.
        config: the file; None looks in the working directory for ``trpexport.toml``, then for
            a section in ``pyproject.toml``.
        beside: names of other sections that may stand beside it.

    Raises:
        TrpexportError: a file can't be read or is no TOML; a named one lacks the section; or a
            section is unknown.
    """
    if config is not None:
        section = _find(config, name, beside)
        if section is None:
            raise TrpexportError(f"{config} has no section {_title(config, name)}: add it")
        return section, str(config)
    for file in (OWN_FILE, PROJECT_FILE):
        path = Path(file)
        if path.is_file() and (section := _find(path, name, beside)) is not None:
            return section, file
    return {}, ""


def unknown_key(key: str, source: str, known: Iterable[str]) -> TrpexportError:
    """Return the error for a key that nobody reads, with the near names or all."""
    known = list(known)
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=3)
    choice = f"did you mean {', '.join(near)}" if near else f"choose from {', '.join(known)}"
    return TrpexportError(f"unknown key {key!r} in {source}: {choice}")


def _find(path: Path, name: str, beside: Collection[str]) -> Mapping[str, Any] | None:
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrpexportError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # bad UTF-8 too
        raise TrpexportError(f"{path} is not valid TOML: {error}") from None
    steps = _steps(path, name)
    for depth, step in enumerate(steps):
        if not isinstance(table, dict):
            raise _no_table(path, name, steps[:depth])
        # The innermost table is ours alone; in those of everyone a near name can only be a slip.
        ours = depth == len(steps) - 1
        others = [key for key in table if key != step and key not in beside]
        if others and ours:
            raise unknown_key(others[0], str(path), [step, *(key for key in beside if key != step)])
        if step not in table:
            near = difflib.get_close_matches(step, table, n=1, cutoff=0.8)
            if near and near[0] not in beside:
                raise unknown_key(near[0], str(path), [step])
            return None
        table = table[step]
    if not isinstance(table, dict):
        raise _no_table(path, name, steps)
    return table


def _no_table(path: Path, name: str, steps: tuple[str, ...]) -> TrpexportError:
    return TrpexportError(
        f"{'.'.join(steps)} in {path} must be a section, as in {_title(path, name)}"
    )


def _steps(path: Path, name: str) -> tuple[str, ...]:
    return (*_OUTER[PROJECT_FILE if path.name == PROJECT_FILE else OWN_FILE], name)


def _title(path: Path, name: str) -> str:
    return f"[{'.'.join(_steps(path, name))}]"
