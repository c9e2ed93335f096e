"""The pictures of the documentation: a report page in a real browser, and spectra.

    python -m benchmarks.pictures

Tunes the repository's TRP ResNet-20 for this machine, in int8 as well, unless ``build/pictures``
holds that already, measures it, writes its page, and looks at it in Chromium: light, dark and
narrow. Needs the shared images and the Debian package chromium. Writes to ``docs/pictures``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TRPEXPORT_SHARED", ROOT.parent / "shared"))
ZOO = ROOT / "models_zoo/checkpoints"
PLAIN, TRP = (ZOO / f"resnet20-{name}.safetensors" for name in ("plain", "trp-spatial"))
BUILD, OUT = ROOT / "build/pictures", ROOT / "docs/pictures"
NAME = "resnet20-trp"

# What is looked at: the file, how wide, how high, and whether it is dark.
PAGES = ("sensitivity", "sweep")  # of the plain ResNet-20
VIEWS = (
    ("report-light.png", 1440, 1500, "light"),
    ("report-dark.png", 1440, 1500, "dark"),
    ("report-narrow.png", 360, 1500, "light"),
)


def trpexport(*arguments: object) -> bytes:
    """Run a command in the folder of what is built, and return what it prints."""
    command = [sys.executable, "-P", "-m", "trpexport", *map(str, arguments)]
    return subprocess.run(command, cwd=BUILD, check=True, stdout=subprocess.PIPE).stdout


def documents() -> list[str]:
    """Make what the page is about, but for what stands; return its names."""
    if not (BUILD / NAME).exists():
        data = f"cifar10:{SHARED / 'data/cifar10-lossless'}"
        options = ("--calib", data, "--min-speedup", 1.5, "--precision", "fp32,int8")
        trpexport("tune", TRP, *options, "-o", NAME)
    for command in ("bench", "profile"):
        record = BUILD / f"{command}.json"
        if not record.exists():
            record.write_bytes(trpexport(command, NAME, "--json"))
    return [NAME, "bench.json", "profile.json"]


def pages() -> None:
    """Make the pages about the plain ResNet-20, but for what stands."""
    data = f"cifar10:{SHARED / 'data/cifar10-lossless'}"
    options = ("--calib", data, "--cache", "cache")
    if not (BUILD / "sensitivity.html").exists():
        budget = ("--target-macs", 0.5, "--precision", "int8")
        trpexport("sensitivity", PLAIN, *options, *budget, "--report", "sensitivity.html")
    if not (BUILD / "sweep.html").exists():
        grid = ("--schemes", "spatial,auto", "--targets", "0.7..0.3", "--data", data)
        trpexport("sweep", PLAIN, *options, *grid, "-o", "sweep", "--report", "sweep.html")


def look(browser: Browser, page: Path, view: tuple[str, int, int, str]) -> None:
    """Take a picture of the beginning of a page."""
    name, width, height, scheme = view
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.screenshot(path=OUT / name, clip={"x": 0, "y": 0, "width": width, "height": height})
    context.close()


def main() -> None:
    """Write all pictures."""
    for folder in (BUILD, OUT):
        folder.mkdir(parents=True, exist_ok=True)
    page = BUILD / "report.html"
    trpexport("report", *documents(), "-o", page)
    trpexport("inspect", TRP, "--beside", PLAIN, "--plot", OUT / "spectra.png")
    pages()
    chromium = shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for view in VIEWS:
            look(browser, page, view)
        for name in PAGES:
            for kind, width, scheme in (("light", 1440, "light"), ("narrow", 360, "dark")):
                view = (f"{name}-{kind}.png", width, 1500, scheme)
                look(browser, BUILD / f"{name}.html", view)
        browser.close()


if __name__ == "__main__":
    main()
