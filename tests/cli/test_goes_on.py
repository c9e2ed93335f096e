"""A signal to what fits layers to images: the same command goes on from those that were fitted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Chained
from tests.conftest import QUICK, Run
from trpexport.choose.gathering import Gatherer


@pytest.mark.parametrize(
    ("command", "options", "written"),
    [
        ("decompose", ("--criterion", "energy:0.6", *QUICK[:3], "-o", "out"), "nothing to out"),
        ("decompose", ("--target-macs", 0.6, *QUICK[:3], "-o", "out"), "nothing to out"),
        ("sensitivity", (), "nothing"),
    ],
)
def test_what_was_fitted_is_not_fitted_again(
    run: Run,
    signals: Callable[..., None],
    chained: Chained,
    smooth_tensors: Callable[[int], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: tuple[object, ...],
    written: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    images = ("--calib", smooth_tensors(16), "--scheme", "channel", "--rank-multiple", 1)
    typed = (command, chained(24, 16), "--include", "*", *images, "--cache", "kept", *options)
    gather, gathered = Gatherer.gather, list[str]()

    def counting(self: Gatherer, layer: Any, *others: Any) -> Any:
        gathered.append(layer.name)
        return gather(self, layer, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Gatherer, "gather", counting)
        assert run(*(x if x != "kept" else "other" for x in typed), "--json").code == 0
        everything = [*gathered]
        (tmp_path / "out").rename("whole") if "out" in options else None
        gathered.clear()
        signals(Gatherer, "gather", signal.SIGINT, lambda *_: len(gathered) == 1)
        stopped = run(*typed)
        assert stopped.code == 130
        assert stopped.error.endswith(
            f"; {written.replace('nothing', 'nothing was written')}; the same command goes on from "
            "what is kept in kept"
        )
        assert gathered == everything[:1]
        result = run(*typed, "--json")
        assert result.code == 0, result.err
        assert gathered == everything
