"""Pages as HTML: nothing of strangers becomes markup, and the policy allows what is there."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.pages import BENCH, EPOCHS, GATE, PROFILE, SENSITIVITY, SWEEP, write_bundle
from trpexport.report.documents import Record, read_document
from trpexport.report.page import Page
from trpexport.report.render.html import html
from trpexport.report.views.chapters import page_of

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "' onmouseover='document.title=1' x='",
    "</style></script><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "</title><b>",
)


class Parsed(HTMLParser):
    """The elements of a page, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def page_of_all(bundle: Path, text: str = "sound") -> Page:
    """Return a page about one of everything."""
    named = [{**one, "label": text} for one in BENCH["results"][0]["models"]]  # type: ignore[index]
    bench = {**BENCH, "results": [{"threads": 1, "models": named}]}
    rule = {**GATE["rules"][0], "name": text, "reason": text}
    gate = {**GATE, "rules": [rule], "baseline": {"path": text, "top1": 0.5}}
    rows = [{**row, "name": text, "verdict": text} for row in PROFILE["comparison"]]
    first, *others = SENSITIVITY["layers"]
    sensitivity = {**SENSITIVITY, "layers": [{**first, "name": text}, *others]}
    sweep = {
        **SWEEP,
        "cells": [{**cell, "label": text} for cell in SWEEP["cells"]],
        "front": [text],
    }
    records = (
        Record(Path(f"{text}.json"), "bench", bench),
        Record(Path("gate"), "gate", gate),
        Record(Path("p.json"), "profile", {**PROFILE, "comparison": rows}),
        Record(Path("run/metrics.jsonl"), "training", {"epochs": EPOCHS}),
        Record(Path("s.json"), "sensitivity", sensitivity),
        Record(Path("sweep"), "sweep", sweep),
    )
    return page_of((read_document(bundle), *records), lambda bundle: ())


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_strangers_becomes_markup(tmp_path: Path, text: str) -> None:
    sound = Parsed(html(page_of_all(write_bundle(tmp_path / "sound"))))
    place = write_bundle(tmp_path / "hostile", (text, "b"), text=text)
    other = write_bundle(tmp_path / "as large", ("a", "b"))
    page = html(page_of_all(place, text))
    hostile, sound = Parsed(page), Parsed(html(page_of_all(other)))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in sound.elements]
    assert [sorted(found) for _, found in hostile.elements] == [
        sorted(found) for _, found in sound.elements
    ]
    assert "49" not in re.sub(r"[\d.]+", "", page)  # no template is filled in
    links = [found["href"] for _, found in hostile.elements if "href" in found]
    assert all(str(link).startswith("#") for link in links)


def test_the_policy_allows_the_page_its_own_parts_and_nothing_else(tmp_path: Path) -> None:
    page = html(page_of_all(write_bundle(tmp_path / "b")))
    (policy,) = (
        found["content"]
        for _, found in Parsed(page).elements
        if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    # What the policy would block anyhow.
    names = {name for _, found in Parsed(page).elements for name in found}
    assert not any(name.startswith("on") or name in {"style", "src"} for name in names)


def test_every_row_can_be_sorted_by_numbers(tmp_path: Path) -> None:
    page = html(page_of_all(write_bundle(tmp_path / "b", ("a", "b", "c"))))
    rows = re.findall(r'<tr><th scope="row" class="name[^"]*">([abc])</th>(.*?)</tr>', page)
    assert rows
    keys = [re.findall(r'data-sort="([^"]*)"', cells) for _, cells in rows]
    # Of operator and scheme the text is sorted; rank 2 of 12, 50 MACs of 100, twice fewer.
    assert keys[0][:3] == ["2.0", "50.0", "2.0"]
