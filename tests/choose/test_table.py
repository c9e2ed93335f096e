"""What each layer would lose: measured once, kept for the same job, never for another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from tests.artifact.networks import SHAPE, tiny
from tests.choose.conftest import Measured
from tests.choose.networks import gatherer_of, smooth
from trpexport.choose.alignment import UNALIGNED, Alignment, find_alignment
from trpexport.choose.base import Price
from trpexport.choose.candidates import candidate_ranks
from trpexport.choose.prices import Macs
from trpexport.choose.spectra import analyse
from trpexport.choose.table import SensitivityTable, _Measurer, sensitivity_table
from trpexport.errors import OutputError, TrpexportError
from trpexport.lowrank.fit import narrowing
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.networks.torch.network import TorchNetwork
from trpexport.ops import Layer, LinearOp

X = smooth(32, SHAPE)


def test_one_of_all_schemes_is_chosen_from_as_if_it_were_alone(measured: Measured) -> None:
    network, gatherer, table = measured
    alone = sensitivity_table(network, gatherer, scheme="spatial")
    assert table.only("spatial").layers == alone.layers
    assert any(one.gain > own.gain for one, own in zip(table.layers, alone.layers, strict=True))


def test_errors_fall_with_the_rank(measured: Measured) -> None:
    for layer in measured.table.layers:
        assert layer.gain > 0
        for scheme in SCHEMES:
            errors = [option.error for option in layer.options if option.scheme == scheme]
            assert errors
            assert all(b < a * 1.05 for a, b in itertools.pairwise(errors))


def test_options_cost_what_their_factors_do(measured: Measured) -> None:
    network, _, table = measured
    layers = {layer.name: layer for layer in network.layers}
    for row in table.layers:
        op, (call,) = layers[row.name].op, layers[row.name].calls
        first, *others = row.options
        assert (first.scheme, first.rank, first.error) == (None, None, 0.0)
        kernel = op.kernel[0] * op.kernel[1]
        pixels = (16 * 16) // (1 if row.name == "conv1" else 4)
        assert call.places == 1
        assert first.costs["macs"] == op.in_channels * op.out_channels * kernel * pixels
        for option in others:
            if option.scheme == "channel":  # the kernel to as many channels as the rank, then 1x1
                weights = option.rank * (op.in_channels * kernel + op.out_channels)  # type: ignore[operator]
                assert option.costs["macs"] == weights * pixels
                assert option.costs["parameters"] == weights + op.out_channels
    whole = {name: sum(row.options[0].costs[name] for row in table.layers) for name in table.fixed}
    for name, cost in network.cost.to_json().items():
        if name in whole:
            assert table.fixed[name] + whole[name] == cost


def test_a_table_survives_json(measured: Measured) -> None:
    table = measured.table
    assert SensitivityTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    later = {**table.to_json(), "schema_version": 99}
    broken: list[Any] = [{}, [], later, {"schema_version": 1}]
    for damaged in broken:
        with pytest.raises(ValueError, match="it "):
            SensitivityTable.from_json(damaged)


@pytest.fixture
def cached(tmp_path: Path) -> Callable[..., tuple[SensitivityTable, bool]]:
    """Returns a table of a job, and whether it was measured for that."""

    def table(
        network: TorchNetwork | None = None, x: NDArray[Any] = X, **options: Any
    ) -> tuple[SensitivityTable, bool]:
        network = network or TorchNetwork.open(tiny(), SHAPE)
        lines = list[str]()
        job: dict[str, Any] = {
            "scheme": "channel",
            "alignment": Alignment(8, "auto"),
            "cache": tmp_path,
        } | options
        found = sensitivity_table(network, gatherer_of(network, x), announce=lines.append, **job)
        return found, bool(lines)

    return table


def test_the_cache_is_read_only_for_the_same_job(
    cached: Callable[..., tuple[SensitivityTable, bool]], tmp_path: Path
) -> None:
    first, is_measured = cached()
    assert is_measured
    assert all(option.rank in (None, 8) for layer in first.layers for option in layer.options)
    assert cached() == (first, False)
    assert cached(x=X[::-1].copy()) == (first, False)  # the order of images is nothing new
    for other in ({"alignment": Alignment(4, "auto")}, {"x": X[:4]}, {"prices": [Macs()]}):
        table, is_measured = cached(**other)
        assert is_measured
        assert table.key != first.key
    model = tiny()
    model.load_state_dict({k: v * 1.01 for k, v in model.state_dict().items()})
    assert cached(TorchNetwork.open(model, SHAPE))[0].key != first.key
    for path in tmp_path.iterdir():
        path.write_text('{"schema_version": 1')  # cut off
    assert cached() == (first, True)
    assert cached() == (first, False)


def test_a_table_that_was_stopped_goes_on_from_its_last_layer(
    cached: Callable[..., tuple[SensitivityTable, bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _ = cached(cache=tmp_path / "other")
    measure, measured = _Measurer._layer, list[str]()

    def layer(self: _Measurer, one: Any, ranks: Any) -> Any:
        if len(measured) == len(whole.layers) - 1:
            raise KeyboardInterrupt
        measured.append(one.name)
        return measure(self, one, ranks)

    monkeypatch.setattr(_Measurer, "_layer", layer)
    with pytest.raises(KeyboardInterrupt):
        cached(cache=tmp_path / "cache")
    assert len(measured) >= 1
    done = [*measured]
    measured[:] = ["another count"] * len(whole.layers)
    found, _ = cached(cache=tmp_path / "cache")
    assert found == whole
    again = [name for name in measured if name != "another count"]
    assert done + again == [layer.name for layer in whole.layers]
    assert [path.suffixes for path in (tmp_path / "cache").iterdir()] == [[".json"]]


def test_jobs_may_share_a_cache(
    cached: Callable[..., tuple[SensitivityTable, bool]], tmp_path: Path
) -> None:
    networks = [TorchNetwork.open(tiny(), SHAPE) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda network: cached(network, X[:4])[0], networks))
    assert len({one.key for one in found}) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    assert cached(x=X[:4]) == (found[0], False)


class Seconds:
    """So many seconds a MAC, on a device of that speed."""

    resource = "seconds"

    def __init__(self, per_mac: float) -> None:
        self._per_mac = per_mac
        self._macs = Macs()

    def whole(self, network: Network) -> float:
        return self._per_mac * self._macs.whole(network)

    def of(self, layer: Layer, ops: Sequence[LinearOp]) -> float:
        return self._per_mac * self._macs.of(layer, ops)


def test_another_price_of_the_same_name_is_another_job(
    cached: Callable[..., tuple[SensitivityTable, bool]],
) -> None:
    prices: list[Price] = [Seconds(1e-9), Seconds(2e-9), Seconds(1e-9)]
    tables = [cached(prices=[Macs(), price]) for price in prices]
    assert [is_measured for _, is_measured in tables] == [True, True, False]
    slow, fast = (tables[i][0].layers[0].options[1].costs for i in (1, 0))
    assert slow["seconds"] == pytest.approx(2 * fast["seconds"])
    assert slow["macs"] == fast["macs"]


@pytest.mark.parametrize(
    ("damage"),
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"schema_version": 6, "key": "", "layers": 3, "fixed": {}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_table_is_measured_again(
    cached: Callable[..., tuple[SensitivityTable, bool]], tmp_path: Path, damage: bytes
) -> None:
    first, _ = cached()
    (path,) = tmp_path.glob("sensitivity-*.json")
    content = path.read_bytes()
    path.write_bytes(damage)
    assert cached() == (first, True)
    assert path.read_bytes() == content
    for old, new in ((b'"macs": ', b'"macs": "x", "z": '), (b'"error": ', b'"error": NaN, "z": ')):
        path.write_bytes(content.replace(old, new))
        assert cached() == (first, True)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    network = TorchNetwork.open(tiny(), SHAPE)
    gatherer = gatherer_of(network, X)
    with pytest.raises(OutputError, match="can't write") as caught:
        sensitivity_table(network, gatherer, scheme="channel", cache=tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_an_unknown_scheme_is_one_line(measured: Measured) -> None:
    with pytest.raises(TrpexportError, match="unknown scheme"):
        sensitivity_table(measured.network, measured.gatherer, scheme="spatail")


def test_candidate_ranks_share_the_multiple_and_reach_the_last_cheaper_one(
    measured: Measured,
) -> None:
    scheme = SCHEMES["spatial"]
    analysis = analyse(measured.network, "spatial")
    for layer in (each.layer for each in analysis.layers if each.values is not None):
        last = scheme.break_even_rank(layer.op, layer.calls)
        assert candidate_ranks(scheme, layer, UNALIGNED)[-1] == last
        assert candidate_ranks(scheme, layer, UNALIGNED)[0] == 1
        assert all(rank % 4 == 0 for rank in candidate_ranks(scheme, layer, Alignment(4, "auto")))
        # Where a block is too large, whole halves of it, and so on.
        (alone, *others) = candidate_ranks(scheme, layer, Alignment(1024, "auto"))
        assert alone & (alone - 1) == 0 and alone <= last < 2 * alone
        assert not others
        # None where that very multiple was asked for.
        assert candidate_ranks(scheme, layer, find_alignment(1024)) == []


def test_ranks_that_a_wide_layer_can_not_be_fitted_at_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    monkeypatch.setattr(narrowing, "MAX_UNKNOWNS", 5 * 9)
    table = sensitivity_table(network, gatherer_of(network, X))
    ranks = {
        scheme: max(
            option.rank or 0
            for layer in table.layers
            if layer.name != "stem"
            for option in layer.options
            if option.scheme == scheme
        )
        for scheme in SCHEMES
    }
    # A factor that begins with a 1x1 convolution has no more channels than are seen.
    assert ranks["input-channel"] <= 5
    assert ranks["tucker2"] <= 5
    assert ranks["spatial"] > 5
