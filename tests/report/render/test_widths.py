"""Tables of commands at 80, 100 and 160 columns: minor columns go, no digit and no verdict does."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from tests.report.views.test_bench import BASE, OTHER, record
from tests.report.views.test_bundle import REPORT as BUNDLE
from trpexport.cost import Cost, OperatorCost
from trpexport.inputs import Inputs
from trpexport.ops import LinearOp, Window
from trpexport.plan import LayerPlan, Plan
from trpexport.report.blocks import Block, Table
from trpexport.report.render.rich import print_blocks
from trpexport.report.render.spans import cell_spans, plain
from trpexport.report.views.bench import bench_view
from trpexport.report.views.bundle import bundle_view
from trpexport.report.views.calibration import calibration_view
from trpexport.report.views.cost import cost_view
from trpexport.report.views.plan import plan_view
from trpexport.report.views.spectra import spectra_view

WIDTHS = (80, 100, 160)
# Of a network of three layers, and of one whose names and numbers are long.
NAMES = {
    "small": ["conv1", "[red]x[/red]", "fc"],
    "large": [f"backbone.stages.{n}.blocks.17.conv_depthwise.conv" for n in range(40)],
    "longer than a line": [f"{'feature_pyramid_network.' * 4}block_{n}[/]" for n in range(4)],
}
CRITERIA = ("value:0.05", "relative:0.1", "energy:0.9", "energy1:0.9", "vbmf")


def cost(names: Sequence[str], size: int) -> tuple[Block, ...]:
    shape = (1, size, size, size)
    layers = tuple(
        OperatorCost(name, "Conv2d", shape, shape, size**3, size**2, size) for name in names
    )
    return cost_view(Cost(layers, {"Relu": 2}, {}, 5))


def plan(names: Sequence[str], size: int) -> tuple[Block, ...]:
    op = LinearOp(size, size, window=Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)))
    layers = tuple(
        LayerPlan(
            name, op, (), "spatial", size // 3, 3 * size, (op, op), None, 0.123,
            macs=size**3, factor_macs=size**2,
        )
        for name in names
    )  # fmt: skip
    return plan_view(Plan("spatial", "energy:0.9", Inputs.of({"input": (1, 3, 8, 8)}), layers))


def spectra(names: Sequence[str], size: int) -> tuple[Block, ...]:
    ranks = {name: size - place for place, name in enumerate(CRITERIA)}
    layers = [
        {
            "name": name, "operator": f"{size}->{size} 3x3", "reason_kept": None, "full_rank": size,
            "break_even_rank": size - 2, "spectrum": [3.0, 1.0], "ranks": ranks,
        }
        for name in names
    ]  # fmt: skip
    choices = [
        {"criterion": name, "macs_ratio": 1.234, "weight_error": 0.5678} for name in CRITERIA
    ]
    return spectra_view(
        {
            "criteria": choices, "layers": layers, "uncounted": {}, "architecture": "resnet",
            "input_shape": [1, 3, 224, 224], "macs": size**3, "scheme": "spatial",
        }
    )  # fmt: skip


def bench(names: Sequence[str], size: int) -> tuple[Block, ...]:
    of: dict[str, Any] = {"macs": 1234 * size**2, "file_bytes": 123456 * size}
    low = {**OTHER["ratio"], "verdict": "no measurable difference", "mid": 1.004}
    return bench_view(
        record(BASE | of | {"label": names[0]}, OTHER | of | {"label": names[1], "ratio": low})
    )


def calibrated(names: Sequence[str], size: int) -> tuple[Block, ...]:
    layers = [
        {
            "name": name, "scheme": "spatial-channel", "rank": size, "weight_error": 12.345,
            "error_before": 0.5678, "error_after": 0.1234, "error_share": 0.9876,
        }
        for name in names
    ]  # fmt: skip
    return calibration_view(
        {
            "layers": [{"name": name, "macs": {"after": 25}} for name in names],
            "macs": {"after": 25 * len(names)},
            "layers_rewritten": len(names),
            "calibration": {
                "images": 512, "data": "imagefolder:[red]", "split": "train", "layers": layers,
                "output_error": 0.0625,
            },
        }
    )  # fmt: skip


def written(names: Sequence[str], size: int) -> tuple[Block, ...]:
    notes = [f"left out of the outputs, as it is no tensor: {name} ({size})" for name in names]
    return bundle_view(BUNDLE | {"file_bytes": 123456 * size, "notes": notes})


VIEWS = {"bench": bench, "flops": cost, "inspect": spectra, "decompose": plan}
MORE = VIEWS | {"decompose --calib": calibrated, "what was written": written}


def shown(blocks: Sequence[Block], width: int) -> str:
    target = io.StringIO()
    print_blocks(blocks, Console(file=target, width=width, force_terminal=True, color_system=None))
    return target.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("network", NAMES)
@pytest.mark.parametrize("view", MORE)
def test_no_digit_and_no_verdict_is_lost(view: str, network: str, width: int) -> None:
    names = NAMES[network]
    blocks = MORE[view](names, 64 if network == "small" else 1536)
    text = shown(blocks, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    together = re.sub(r"\s+", "", text)
    for table in (block for block in blocks if isinstance(block, Table)):
        for column in (one for one in table.columns if not one.optional):
            for row in (*table.rows, *table.totals):
                cell = plain(cell_spans(row[column.key], column)) if column.key in row else ""
                assert all(number in text for number in re.findall(r"[\d.,]*\d", cell))
    assert all(name.replace(" ", "") in together or len(name) > 30 for name in names[:2])
    if view == "bench":
        for word in ("no", "measurable", "difference"):
            assert word in text


@pytest.mark.parametrize("view", ["flops", "decompose"])
def test_long_names_leave_room_for_all_numbers_beside_them(view: str) -> None:
    text = shown(VIEWS[view](NAMES["longer than a line"], 1536), 80)
    headings = [line for line in text.splitlines() if line.lstrip().startswith("layer")]
    assert len(headings) == 1  # one table, not one for each column
    assert "block_3[/]" in text


def test_a_wide_terminal_shows_what_a_narrow_one_leaves_out() -> None:
    for view in VIEWS.values():
        blocks = view(NAMES["large"], 1536)
        optional = [
            column.title
            for table in blocks
            if isinstance(table, Table)
            for column in table.columns
            if column.optional
        ]
        assert optional
        narrow, wide = shown(blocks, 80), shown(blocks, 160)
        assert "no room at 80 columns for: " in narrow
        assert narrow.count("no room") >= wide.count("no room")


def test_lines_end_where_their_text_ends() -> None:
    for terminal in (False, True):
        target = Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None)
        print_blocks(plan(NAMES["small"], 64), target)
        assert isinstance(target.file, io.StringIO)
        lines = target.file.getvalue().splitlines()
        assert lines == [line.rstrip() for line in lines]


def test_names_from_files_are_no_markup() -> None:
    assert "[red]x[/red]" in shown(cost(NAMES["small"], 8), 80)
    assert r"\x1b[2J" in shown(cost(["a\x1b[2Jb"], 8), 80)
