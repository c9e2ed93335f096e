"""The command that installs an extra, by where the package came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from trpexport import installing


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    installing._requirement.cache_clear()
    yield
    installing._requirement.cache_clear()


def recorded(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return text

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())


@pytest.mark.parametrize(
    ("facts", "command"),
    [
        ({"dir_info": {"editable": True}}, 'pip install -e "PLACE[cpu]"'),
        ({"dir_info": {}}, 'pip install "PLACE[cpu]"'),
        ({"archive_info": {}}, 'pip install "PLACE[cpu]"'),
    ],
)
def test_from_a_file_or_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: dict[str, Any], command: str
) -> None:
    place = tmp_path / "a b.whl"
    place.touch()
    recorded(monkeypatch, json.dumps({"url": place.as_uri(), **facts}))
    assert installing.install_command("cpu") == command.replace("PLACE", str(place))
    installing._requirement.cache_clear()
    place.unlink()
    assert installing.install_command("cpu") == 'pip install "trpexport[cpu]"'


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"url": "https://example.org/x.whl"}'])
def test_from_an_index(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    recorded(monkeypatch, text)
    assert installing.install_command("edge") == 'pip install "trpexport[edge]"'
    assert installing.install_command("edge", update=True) == 'pip install -U "trpexport[edge]"'


def test_from_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"url": "https://example.org/x", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    recorded(monkeypatch, json.dumps(facts))
    said = installing.install_command("cpu")
    assert said == 'pip install "trpexport[cpu] @ git+https://example.org/x@abc"'


def test_nobody_else_spells_the_command() -> None:
    own = Path("trpexport/installing.py")
    spelled = {
        str(path.relative_to(ROOT))
        for folder in ("trpexport", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"pip install [^\n]*trpexport\[", path.read_text(encoding="utf-8"))
    }
    assert spelled <= {str(own)}
