"""``trpexport report``, and ``--report`` of what writes something."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.app import command_line
from tests.conftest import QUICK, Run
from tests.pages import BENCH, EPOCHS, GATE, PROFILE, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "small")


def test_a_page_of_a_bundle_and_records(run: Run, tmp_path: Path, bundle: Path) -> None:
    records = []
    for name, record in (("bench", BENCH), ("gate", GATE), ("profile", PROFILE)):
        records.append(tmp_path / f"{name}.json")
        records[-1].write_text(json.dumps(record))
    trained = tmp_path / "run"
    trained.mkdir()
    (trained / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in EPOCHS))
    out = tmp_path / "page.html"
    done = run("report", bundle, *records, trained, "-o", out)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"Wrote {out}\n"
    page = out.read_text()
    titles = re.findall(r"<h2[^>]*>([^<]*)", page)
    # Verdicts first.
    assert titles == ["Gate", "small", "Measured: bench", "Time by layer: profile", "Training: run"]
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", page)  # it loads nothing


def test_the_plots_of_a_page_as_a_picture(run: Run, tmp_path: Path) -> None:
    trained, gate = tmp_path / "run", tmp_path / "gate.json"
    trained.mkdir()
    (trained / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in EPOCHS))
    gate.write_text(json.dumps(GATE))
    page, picture = tmp_path / "page.html", tmp_path / "picture.svg"
    assert run("report", trained, "-o", page, "--plot", picture).code == 0
    drawn = picture.read_text()
    assert all(title in drawn for title in ("Rank and MACs", "Accuracy"))
    assert page.exists()
    refused = run("report", gate, "-o", tmp_path / "other.html", "--plot", tmp_path / "other.svg")
    assert refused.code == 2
    assert "nothing to plot" in refused.err
    assert not list(tmp_path.glob("other*"))


def test_markdown_goes_to_the_screen(run: Run, bundle: Path) -> None:
    done = run("report", bundle, "--format", "md")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("## small\n")
    assert "| **MACs** | 2.00x fewer | 200 -> 100 |" in done.out
    assert done.out.count("<details>") == done.out.count("</details>") > 3


def test_a_file_says_by_its_name_what_it_is(run: Run, tmp_path: Path, bundle: Path) -> None:
    assert run("report", bundle, "-o", tmp_path / "a.md").code == 0
    assert run("report", bundle, "-o", tmp_path / "a.htm").code == 0
    assert (tmp_path / "a.md").read_text().startswith("## ")
    assert (tmp_path / "a.htm").read_text().startswith("<!doctype html>")


def test_what_is_typed_to_make_it_again_is_understood(run: Run, bundle: Path) -> None:
    text = run("report", bundle, "--format", "md").out
    (line,) = re.findall(r"^    trpexport (decompose .*)$", text, flags=re.MULTILINE)
    name, *words = line.split()
    assert (name, words[0]) == ("decompose", "net.pth")
    with command_line().commands[name].make_context(name, words) as context:
        assert context.params["precision"] == ["int8"]
        assert context.params["seed"] == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "neither a bundle nor a record"),
        ('{"kind": ["bench"]}', "neither a bundle nor a record"),
        ('{"kind": "other"}', "neither a bundle nor a record"),
        ('{"kind": "profile"}', "is damaged"),
        ('{"kind": "gate", "rules": 1}', "is damaged"),
    ],
)
def test_what_is_no_record(run: Run, tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    done = run("report", path, "-o", tmp_path / "page.html")
    assert done.code == 2
    assert said in done.error
    assert not (tmp_path / "page.html").exists()


def test_a_bundle_of_another_version(run: Run, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "old", schema_version=2)
    assert "schema version 2" in run("report", path, "-o", tmp_path / "page.html").error


def test_a_place_that_can_not_be_written(run: Run, tmp_path: Path, bundle: Path) -> None:
    done = run("report", bundle, "-o", tmp_path / "none" / "page.html")
    assert done.code == 2
    assert done.error


@pytest.mark.parametrize("formats", [("--format", "pdf"), ("--format", "html,md")])
def test_a_format_that_is_none(run: Run, bundle: Path, formats: tuple[str, ...]) -> None:
    assert "give html or md" in run("report", bundle, *formats).error


def test_what_is_missing_is_told_before_any_work(
    run: Run, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jinja2", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run("report", bundle, "-o", tmp_path / "page.html")
    assert (done.code, '[page]"' in done.error) == (2, True)
    assert run("report", bundle, "-o", tmp_path / "page.md").code == 0  # needs nothing
    done = run("decompose", "none.pth", "--report", tmp_path / "page.html")
    assert '[page]"' in done.error
    done = run("inspect", "none.pth", "--plot", tmp_path / "a.png")
    assert '[plot]"' in done.error


def test_decompose_writes_a_page_after_its_bundle(run: Run, tmp_path: Path, chained: Any) -> None:
    out, page = tmp_path / "out", tmp_path / "page.html"
    done = run(
        *("decompose", chained(16, 8), "--criterion", "rank:2", "--rank-multiple", 1),
        *("-o", out, "--report", page, *QUICK[:2]),
    )
    assert done.code == 0, done.err
    assert f"Wrote {page}" in done.err
    assert "<h1>out</h1>" in page.read_text()
    done = run("decompose", "none.onnx", "--report", tmp_path / "page.pdf")
    assert "must end in .html or .md" in done.error


def test_gate_writes_a_page_whatever_it_found(run: Run, tmp_path: Path, chained: Any) -> None:
    network, page = chained(16, 8), tmp_path / "page.html"
    done = run(
        "gate", "--baseline", network, "--candidate", network, "--min-macs-ratio", "2",
        "--report", page, "--json",
    )  # fmt: skip
    assert done.code == 1
    assert json.loads(done.out)["passed"] is False
    assert "The gate failed: min-macs-ratio" in page.read_text()


def test_pictures(run: Run, tmp_path: Path, chained: Any) -> None:
    network, spectra, times = chained(16, 8), tmp_path / "spectra.svg", tmp_path / "times.png"
    done = run("inspect", network, "--beside", network, "--plot", spectra, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["scheme"] == "spatial"
    assert spectra.read_text().count("conv1") == 1
    quick = ("--min-time", 0, "--min-runs", 2, "--warmup-seconds", 0, "--no-memory")
    done = run("bench", network, network, *quick, "--plot", times)
    assert done.code == 0, done.err
    assert times.read_bytes().startswith(b"\x89PNG")
    assert "does nothing without --plot" in run("inspect", network, "--beside", network).error
