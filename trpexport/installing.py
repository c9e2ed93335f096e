"""How to install what is missing: the one place that knows the command."""

from __future__ import annotations

import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "trpexport"


def install_command(extra: str, *, update: bool = False) -> str:
    """Return what installs an extra from where this package came: an index, a file, a source tree.

    Args:
        extra: of the package, as ``cpu``.
        update: whether what is there is to be replaced by what is newer.
    """
    return f"pip install {'-U ' if update else ''}{_requirement(extra)}"


@cache
def _requirement(extra: str) -> str:
    """Return what pip is to be told, by what it recorded when it installed this package (PEP 610).

    What came from a file or a folder that has gone since is looked for in the index.
    """
    facts = _recorded()
    url, control = str(facts.get("url", "")), facts.get("vcs_info")
    if control:
        commit = control.get("commit_id", "")
        return f'"{DISTRIBUTION}[{extra}] @ {control.get("vcs", "git")}+{url}@{commit}"'
    parts = urlsplit(url)
    place = Path(url2pathname(parts.path))
    if parts.scheme != "file" or not place.exists():
        return f'"{DISTRIBUTION}[{extra}]"'
    option = "-e " if facts.get("dir_info", {}).get("editable") else ""
    return f'{option}"{place}[{extra}]"'


def _recorded() -> dict[str, Any]:
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        facts = json.loads(text or "{}")
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
