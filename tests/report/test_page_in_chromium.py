"""Pages in a real browser: sorted, filtered, narrow and wide, dark, checked by axe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages import SENSITIVITY, SWEEP, write_bundle
from tests.report.render.test_html import HOSTILE, page_of_all
from trpexport.report.documents import Record, read_document
from trpexport.report.render.html import html
from trpexport.report.views.chapters import page_of

NAMES = tuple(f"layer{number}.conv" for number in range(12))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a screen; its tests are skipped where it is missing."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    api = pytest.importorskip("playwright.sync_api")
    if path is None:
        reason = "needs the Debian package chromium"
        if os.environ.get("TRPEXPORT_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    with api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about one of everything, and two bundles."""
    folder = tmp_path_factory.mktemp("page")
    one, two = write_bundle(folder / "one", NAMES), write_bundle(folder / ("two" * 40))
    both = page_of((read_document(one), read_document(two)), lambda bundle: ())
    everything = page_of_all(one, "network")
    page = type(both)("one", both.chapters + everything.chapters[:1] + everything.chapters[2:])
    out = folder / "page.html"
    out.write_text(html(page))
    return out


@pytest.fixture
def opened(browser: Any, place: Path) -> Iterator[Any]:
    """Open a page; nothing may be said on its console."""
    said: list[str] = []
    contexts = []

    def call(width: int = 1440, scheme: str = "light", path: Path = place) -> Any:
        view = {"width": width, "height": 900}
        context = browser.new_context(viewport=view, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield call
    for context in contexts:
        context.close()
    assert said == []


def first_cells(page: Any, table: Any) -> list[str]:
    found: list[str] = table.locator("tbody tr:not([hidden]) > :first-child").all_inner_texts()
    return found


def layers(page: Any) -> Any:
    return page.locator(".table:has(output)").first


def test_a_column_is_sorted_by_click_and_by_keyboard(opened: Any) -> None:
    page = opened()
    table = layers(page)
    head = table.locator("th", has_text="layer").first
    before = first_cells(page, table)
    assert before == [*NAMES, "last"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert first_cells(page, table) == ["last", *NAMES]  # 2 before 10
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert first_cells(page, table) == [*reversed(NAMES), "last"]
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert first_cells(page, table) == before


def test_numbers_are_sorted_by_size_and_what_is_missing_comes_last(opened: Any) -> None:
    table = layers(page := opened())
    button = table.locator("th", has_text="rank").locator("button")
    for _ in range(2):
        button.click()
        assert first_cells(page, table)[-1] == "last"  # the layer that was kept has no rank


def test_rows_are_filtered(opened: Any) -> None:
    table = layers(page := opened())
    table.locator("input").fill("LAYER1 spatial")
    assert first_cells(page, table) == []
    table.locator("input").fill("Layer1")
    assert first_cells(page, table) == ["layer1.conv", "layer10.conv", "layer11.conv"]
    assert table.locator("output").inner_text() == "3 of 13 rows"
    table.locator("input").fill("")
    assert len(first_cells(page, table)) == 13


def test_points_say_what_they_are(opened: Any) -> None:
    page = opened()
    point = page.locator("[data-tip][tabindex]").first
    point.focus()
    assert page.locator("#tip").inner_text() == point.get_attribute("aria-label")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.locator("svg.stack rect").first.hover()
    assert "layer0.conv: 100" in page.locator("#tip").inner_text()


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_overflows(opened: Any, width: int) -> None:
    page = opened(width)
    for folded in page.locator("details").all():
        folded.evaluate("element => element.open = true")
    wide = page.evaluate(
        """width => [...document.querySelectorAll("body *")]
             .filter(element => !element.closest(".scroll > *") && !element.closest("svg > *"))
             .filter(element => element.getBoundingClientRect().right > width + 0.5)
             .map(element => element.outerHTML.slice(0, 80))""",
        width,
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


BROKEN_UP = """() => [...document.querySelectorAll("tbody .name")].filter(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
  return lines > 1 && cell.textContent.trim().length / lines < 6;
}).map(cell => cell.textContent.trim())"""


def test_names_are_not_broken_up(opened: Any, tmp_path: Path) -> None:
    named = {"layer": "features.stage3.2.conv1", "label": "spatial-channel 0.35 int8"}
    layer, cell = SENSITIVITY["layers"][0], SWEEP["cells"][0]
    documents = (
        Record(
            Path("s.json"),
            "sensitivity",
            {**SENSITIVITY, "layers": [{**layer, "name": named["layer"]}]},
        ),
        Record(
            Path("c.json"),
            "sweep",
            {**SWEEP, "cells": [{**cell, "label": named["label"]}], "front": []},
        ),
    )
    path = tmp_path / "page.html"
    path.write_text(html(page_of(documents, lambda bundle: ())))
    page = opened(360, path=path)
    assert page.locator("tbody .name", has_text=named["layer"]).count()
    assert page.evaluate(BROKEN_UP) == []


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (360, "dark")])
def test_contrast_and_labels(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    place = tmp_path / "page.html"
    place.write_text(html(page_of_all(write_bundle(tmp_path / "b"))))
    view = {"width": width, "height": 900}
    # axe is put in beside the page's own script, which its policy does not allow.
    context = browser.new_context(viewport=view, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(place.as_uri())
    found = axe.Axe().run(page).response["violations"]
    context.close()
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []


def test_dark_is_dark(opened: Any) -> None:
    colours = [
        opened(360, scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    light, dark = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
    assert light > 600
    assert dark < 150


def test_on_paper_all_is_unfolded_and_light(browser: Any, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", tuple(f"n{number}" for number in range(30)))
    path = tmp_path / "page.html"
    path.write_text(html(page_of((read_document(bundle),), lambda bundle: ())))
    page = browser.new_page(color_scheme="dark")
    page.goto(path.as_uri())
    assert not page.locator("details").evaluate("element => element.open")
    assert page.pdf()[:4] == b"%PDF"
    assert page.locator("details").evaluate("element => element.open")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()


def test_a_bundle_of_strangers_runs_nothing(opened: Any, tmp_path: Path) -> None:
    names = tuple(f"{text} {number}" for number, text in enumerate(HOSTILE))
    bundle = write_bundle(tmp_path / "b", names, text=" ".join(HOSTILE))
    path = tmp_path / "page.html"
    path.write_text(html(page_of_all(bundle, HOSTILE[1])))
    page = opened(path=path)
    page.locator("svg.stack rect").first.hover()
    assert page.title() == "b and 6 more - trpexport"
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0


def test_a_script_that_got_in_all_the_same_is_blocked(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    sound = html(page_of_all(write_bundle(tmp_path / "b")))
    path.write_text(sound.replace("<main>", "<main><script>document.title = 'owned'</script>"))
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert page.title() != "owned"
    assert any("Content Security Policy" in line for line in said)
    page.close()
