"""The pictures of the documentation: pages in a real browser, and spectra.

    python -m benchmarks.pictures [report] [spectra] [sensitivity] [sweep]

All where none is named. ``report`` is about the repository's TRP ResNet-20, tuned for this
machine and in int8 as well; ``sensitivity`` and ``sweep`` about the plain one. What they are made
of lies in ``build/pictures`` and is not made again. Pages are seen in Chromium: light, dark and
narrow. Needs the shared images and the Debian package chromium. Writes to ``docs/pictures``.

Of these the report alone shows times: it is refused while other work is going on, and where the
times vary more than they would on a machine that is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TRPEXPORT_SHARED", ROOT.parent / "shared"))
ZOO = ROOT / "models_zoo/checkpoints"
PLAIN, TRP = (ZOO / f"resnet20-{name}.safetensors" for name in ("plain", "trp-spatial"))
BUILD, OUT = ROOT / "build/pictures", ROOT / "docs/pictures"
NAME = "resnet20-trp"
DATA = f"cifar10:{SHARED / 'data/cifar10-lossless'}"
MAX_LOAD = 0.3  # processes that run or wait, over the last minute
MAX_SPREAD = 0.1  # of a speed-up's interval, over its middle
HEIGHT = 1500  # at most

# What each page is looked at in: how wide, and whether it is dark.
VIEWS = {"light": (1440, "light"), "dark": (1440, "dark"), "narrow": (360, "light")}


def trpexport(*arguments: object) -> bytes:
    """Run a command in the folder of what is built, and return what it prints."""
    command = [sys.executable, "-P", "-m", "trpexport", *map(str, arguments)]
    return subprocess.run(command, cwd=BUILD, check=True, stdout=subprocess.PIPE).stdout


def check_quiet() -> None:
    """Refuse to time anything beside other work."""
    load = os.getloadavg()[0]
    if load > MAX_LOAD:
        raise SystemExit(
            f"error: the machine is busy ({load:.1f} processes run), so times on the report page "
            "would be wrong: wait, or make the others: python -m benchmarks.pictures spectra "
            "sensitivity sweep"
        )


def report() -> None:
    """Make the page of a tuned bundle, measured and profiled, but for what stands."""
    if not (BUILD / NAME).exists():
        check_quiet()
        options = ("--calib", DATA, "--min-speedup", 1.5, "--precision", "fp32,int8")
        trpexport("tune", TRP, *options, "-o", NAME)
        for command in ("bench", "profile"):
            (BUILD / f"{command}.json").write_bytes(trpexport(command, NAME, "--json"))
        check_times(BUILD / "bench.json")
    trpexport("report", NAME, "bench.json", "profile.json", "-o", "report.html")


def check_times(record: Path) -> None:
    """Refuse times that were taken beside other work: their intervals are wide."""
    models = json.loads(record.read_text())["results"][0]["models"]
    for ratio in (model["ratio"] for model in models if model["ratio"] is not None):
        if ratio["high"] - ratio["low"] > MAX_SPREAD * ratio["mid"]:
            shutil.rmtree(BUILD / NAME)
            raise SystemExit(
                f"error: speed-ups vary from {ratio['low']:.2f} to {ratio['high']:.2f}: something "
                "else was at work, begin again when nothing is"
            )


def spectra() -> None:
    """Draw the spectra of both networks."""
    trpexport("inspect", TRP, "--beside", PLAIN, "--plot", OUT / "spectra.png")


def sensitivity() -> None:
    """Make the page that says which layer costs what, but where it stands."""
    if not (BUILD / "sensitivity.html").exists():
        how = ("--target-macs", 0.5, "--precision", "int8", "--cache", "cache")
        trpexport("sensitivity", PLAIN, "--calib", DATA, *how, "--report", "sensitivity.html")


def sweep() -> None:
    """Make the page of a sweep, but where it stands."""
    if not (BUILD / "sweep.html").exists():
        grid = ("--schemes", "spatial,auto", "--targets", "0.7..0.3", "--data", DATA)
        place = ("--cache", "cache", "-o", "sweep", "--report", "sweep.html")
        trpexport("sweep", PLAIN, "--calib", DATA, *grid, *place)


MAKERS: dict[str, Callable[[], None]] = {
    "report": report,
    "spectra": spectra,
    "sensitivity": sensitivity,
    "sweep": sweep,
}


def look(browser: Browser, name: str) -> None:
    """Take pictures of the beginning of a page."""
    for kind, (width, scheme) in VIEWS.items():
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        tab = context.new_page()
        tab.goto((BUILD / f"{name}.html").as_uri())
        height = min(HEIGHT, tab.evaluate("document.documentElement.scrollHeight"))
        clip: Any = {"x": 0, "y": 0, "width": width, "height": height}
        tab.screenshot(path=OUT / f"{name}-{kind}.png", full_page=True, clip=clip)
        context.close()


def main(names: list[str]) -> None:
    """Write pictures, all where none is named."""
    if unknown := {*names} - {*MAKERS}:
        raise SystemExit(f"error: no {min(unknown)} among {', '.join(MAKERS)}")
    names = names or list(MAKERS)
    for folder in (BUILD, OUT):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        MAKERS[name]()
    with sync_playwright() as driver:
        chromium = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in names:
            if (BUILD / f"{name}.html").exists():
                look(browser, name)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
