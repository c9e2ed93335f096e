"""What the plot of accuracies makes of rows of results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.accuracy_plot import PUBLISHED, TITLES, curves, draw


def row(ratio: float, plain: float, calibrated: float) -> dict[str, float]:
    return {
        "images": 100,
        "top1_before": 90.0,
        "top1_plain": plain,
        "top1_calibrated": calibrated,
        "macs_ratio": ratio,
        "plain_macs_ratio": ratio + 0.1,
    }


CURVE = {
    "one/spatial/m1/3": row(3.0, 20.0, 88.0),
    "one/spatial/m1/2": row(2.0, 60.0, 91.0),
    "one/channel/m1/2": row(2.0, 50.0, 85.0),
    "two/spatial/m1/2": row(2.0, 10.0, 11.0),
}
REFINED = {
    "one/spatial/512/3min/3": {"top1_dense": 90.0, "top1_refined": 89.0, "macs_ratio": 3.0},
    "two/spatial/512/3min/3": {"top1_dense": 90.0, "top1_refined": 12.0, "macs_ratio": 3.0},
}


def test_points_are_losses_in_the_order_of_their_macs() -> None:
    assert curves("one", CURVE, REFINED) == {
        "spatial": [(2.0, -1.0), (3.0, 2.0)],
        "svd": [(2.1, 30.0), (3.1, 70.0)],
        "channel": [(2.0, 5.0)],
        "refined": [(3.0, 1.0)],
    }


def test_the_same_results_draw_the_same_picture(tmp_path: Path) -> None:
    rows = {f"{network}/spatial/m1/2": row(2.0, 60.0, 91.0) for network in TITLES}
    files = [tmp_path / f"{name}.svg" for name in "ab"]
    for file in files:
        draw(file, rows, {})
    first, second = (file.read_bytes() for file in files)
    assert first == second


def test_what_others_published_is_of_networks_that_are_drawn() -> None:
    assert PUBLISHED.keys() <= TITLES.keys()
