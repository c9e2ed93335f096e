"""A calibration that was stopped goes on from the layers that it had fitted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.artifact.networks import SHAPE, tiny
from tests.choose.conftest import Measured
from tests.choose.networks import planned, smooth
from trpexport.choose import fits
from trpexport.choose.budget import Budgeter, Outcome
from trpexport.choose.calibrate import Calibrated, calibrate
from trpexport.choose.fits import FitStore
from trpexport.choose.gathering import Gatherer
from trpexport.errors import OutputError
from trpexport.lowrank.fit import narrowing
from trpexport.networks.base import Network
from trpexport.networks.onnx.interpreter import OPERATORS
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.samples import Samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import Plan


@pytest.fixture(params=["PyTorch", "ONNX in PyTorch", "ONNX Runtime"])
def network(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Network:
    """A network behind each kind of watch."""
    found = TorchNetwork.open(tiny(), SHAPE)
    if request.param == "PyTorch":
        return found
    if request.param == "ONNX Runtime":
        monkeypatch.delitem(OPERATORS, ("", "Relu"))
    path = tmp_path / "tiny.onnx"
    found.write_onnx(path, OnnxSettings())
    return OnnxNetwork.open(OnnxSource(path, read_model(path)))


class Gathered:
    """Which layers were gathered for; stops before as many as are asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.stop_at: int | None = None


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> Gathered:
    found, gather = Gathered(), Gatherer.gather

    def counting(self: Gatherer, layer: Any, candidate: Any = None) -> Any:
        if len(found.names) == found.stop_at:
            raise KeyboardInterrupt
        found.names.append(layer.name)
        return gather(self, layer, candidate)

    monkeypatch.setattr(Gatherer, "gather", counting)
    return found


@contextmanager
def stopped(gathered: Gathered, at: int) -> Iterator[None]:
    """Stop the block before layers are gathered for once more."""
    gathered.names.clear()
    gathered.stop_at = at
    with pytest.raises(KeyboardInterrupt):
        yield
    gathered.names.clear()
    gathered.stop_at = None


def plan_of(network: Network, rank: int = 2) -> Plan:
    return planned(network, "channel", f"rank:{rank}")  # type: ignore[arg-type]


def calibrated(
    network: Network,
    cache: Path | None,
    plan: Plan | None = None,
    announce: Callable[[str], None] | None = None,
    seed: int = 0,
) -> Calibrated:
    watch = network.watch(Samples(dict.fromkeys(network.inputs, smooth(24, SHAPE, seed))))
    gatherer = Gatherer(network, watch)
    store = FitStore(cache, network, watch.samples)
    return calibrate(network, plan or plan_of(network), gatherer, store=store, announce=announce)


def assert_same(found: Calibrated, wanted: Calibrated) -> None:
    """Assert that two calibrations came out alike to the last bit."""
    assert found.plan == wanted.plan
    assert found.layers == wanted.layers
    assert found.errors == wanted.errors
    assert found.notes == wanted.notes
    assert list(found.chains) == list(wanted.chains)
    for name, chain in wanted.chains.items():
        other = found.chains[name]
        assert (other.op, other.ops, other.is_truncation) == (
            chain.op,
            chain.ops,
            chain.is_truncation,
        )
        both = zip((*other.kernels, other.bias), (*chain.kernels, chain.bias), strict=True)
        for ours, theirs in both:
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert ours.dtype == theirs.dtype
                assert torch.equal(ours, theirs)


def test_it_goes_on_from_its_last_layer(
    network: Network, gathered: Gathered, tmp_path: Path
) -> None:
    wanted = calibrated(network, None)
    everything = [*gathered.names]
    with stopped(gathered, 2):
        calibrated(network, tmp_path)
    lines: list[str] = []
    assert_same(calibrated(network, tmp_path, announce=lines.append), wanted)
    assert gathered.names == everything[2:]
    assert lines[0] == f"2 of {len(everything)}: fitted before"
    assert lines[1].startswith("3 of ")
    gathered.names.clear()
    assert_same(calibrated(network, tmp_path), wanted)
    assert gathered.names == []


@pytest.mark.parametrize("passes", [1, 2])
def test_a_search_goes_on_from_its_last_pass(
    measured: Measured, gathered: Gathered, tmp_path: Path, passes: int
) -> None:
    network, gatherer, table = measured

    def search(cache: Path) -> Outcome:
        store = FitStore(cache, network, gatherer.watch.samples)
        found = Gatherer(network, network.watch(gatherer.watch.samples))
        return Budgeter(network, table, found, scheme="spatial", store=store).to_error(0.3)

    wanted = search(tmp_path / "other")
    everything = [*gathered.names]
    again = [place for place, name in enumerate(everything) if name == everything[0]]
    assert len(again) > passes
    done = again[passes] + 1  # a layer of the pass behind
    with stopped(gathered, done):
        search(tmp_path / "cache")
    found = search(tmp_path / "cache")
    assert gathered.names == everything[done:]
    assert found.allotment == wanted.allotment
    assert_same(found.calibrated, wanted.calibrated)


def test_what_comes_before_a_layer_is_part_of_what_it_is_known_by(
    gathered: Gathered, tmp_path: Path
) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    calibrated(network, tmp_path)
    names, plan = [*gathered.names], plan_of(network, 3)
    for place, name in enumerate(names):  # a plan that differs from here on
        mixed = Plan(**{**vars(plan_of(network)), "layers": _mixed(plan_of(network), plan, name)})
        gathered.names.clear()
        calibrated(network, tmp_path, mixed)
        assert gathered.names == names[place:]
    gathered.names.clear()
    calibrated(network, tmp_path, seed=1)  # other images
    assert gathered.names == names
    model = tiny()
    model.get_parameter("fc.bias").data += 1.0
    gathered.names.clear()
    calibrated(TorchNetwork.open(model, SHAPE), tmp_path)
    assert gathered.names == names


def _mixed(first: Plan, second: Plan, name: str) -> tuple[Any, ...]:
    """Return the layers of one plan up to a name, and those of another from there."""
    place = [layer.name for layer in first.layers].index(name)
    return (*first.layers[:place], *second.layers[place:])


def test_a_layer_that_cannot_be_fitted_is_not_tried_again(
    gathered: Gathered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrowing, "MAX_UNKNOWNS", 40)
    network = TorchNetwork.open(tiny(), SHAPE)
    plan = planned(network, "tucker2", "rank:14", keep_expensive=True)
    wanted = calibrated(network, tmp_path, plan)
    assert len(wanted.layers) < len(plan.rewritten)
    gathered.names.clear()
    assert_same(calibrated(network, tmp_path, plan), wanted)
    assert gathered.names == []


@pytest.mark.parametrize("content", [b"", b"PK", "arrays"])
def test_what_is_damaged_is_fitted_again(
    gathered: Gathered, tmp_path: Path, content: bytes | str
) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    wanted, everything = calibrated(network, tmp_path), [*gathered.names]
    for path in (tmp_path / "calibration").iterdir():
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, facts=np.zeros(3), bias=np.zeros(2))
    gathered.names.clear()
    assert_same(calibrated(network, tmp_path), wanted)
    assert gathered.names == everything


def test_those_that_were_used_longest_ago_are_removed(
    gathered: Gathered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    calibrated(network, tmp_path)
    count = len(gathered.names)
    calibrated(network, tmp_path, plan_of(network, 3))
    files = [*(tmp_path / "calibration").iterdir()]
    assert len(files) == 2 * (count + 1)
    for path in files:
        os.utime(path, (0, 0))  # clocks of files tick more slowly than layers are fitted
    calibrated(network, tmp_path)  # used again
    used = sorted(files, key=lambda path: path.stat().st_mtime_ns)[count + 1 :]
    monkeypatch.setattr(fits, "_KEPT_BYTES", sum(path.stat().st_size for path in used))
    gathered.names.clear()
    calibrated(network, tmp_path)
    assert gathered.names == []
    calibrated(network, tmp_path, plan_of(network, 3))
    assert len(gathered.names) == count


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    network = TorchNetwork.open(tiny(), SHAPE)
    with pytest.raises(OutputError, match="file"):
        calibrated(network, tmp_path / "file")
