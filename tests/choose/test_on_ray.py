"""A cluster that calibrates gives what this process gives, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.artifact.networks import SHAPE, tiny
from tests.choose.networks import planned, smooth
from tests.latency.networks import twins
from tests.ray_clusters import FakeRay
from trpexport.choose.calibrate import Calibrated, calibrate
from trpexport.choose.fits import FitStore
from trpexport.choose.gathering import Gatherer
from trpexport.choose.on_ray import OnRay, connected_to
from trpexport.errors import PlanError, TrpexportError
from trpexport.networks.base import Network
from trpexport.networks.onnx.interpreter import OPERATORS
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.samples import checked_samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import Plan


@pytest.fixture(autouse=True)
def one_core(fake_ray: FakeRay) -> None:
    """Compute on one core, as the tasks do: sums of several differ in their last bits."""
    torch.set_num_threads(1)


@pytest.fixture
def torch_network() -> TorchNetwork:
    return TorchNetwork.open(tiny(), SHAPE)


@pytest.fixture(params=["PyTorch", "ONNX in PyTorch", "ONNX Runtime"])
def network(
    request: pytest.FixtureRequest,
    torch_network: TorchNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Network:
    """A network behind each kind of watch, which has run."""
    if request.param == "PyTorch":
        return torch_network
    if request.param == "ONNX Runtime":
        monkeypatch.delitem(OPERATORS, ("", "Relu"))
    path = tmp_path / "tiny.onnx"
    torch_network.write_onnx(path, OnnxSettings())
    found = OnnxNetwork.open(OnnxSource(path, read_model(path)))
    found.run({"input": smooth(1, SHAPE)})
    return found


def plans_for(network: Any) -> list[Plan]:
    return [planned(network, scheme, "rank:2") for scheme in ("channel", "spatial")]


@pytest.fixture
def plans(torch_network: TorchNetwork) -> list[Plan]:
    return plans_for(torch_network)


@dataclass
class Calibration:
    """Calibrates a network here, with a cluster that goes ahead if there is one."""

    network: Network
    cache: Path
    cluster: OnRay = field(default_factory=OnRay)

    def __post_init__(self) -> None:
        samples = checked_samples(smooth(24, SHAPE), self.network.inputs)
        self.gatherer = Gatherer(self.network, self.network.watch(samples))
        self.store = FitStore(self.cache, self.network, self.gatherer.watch.samples)
        self.said: list[str] = []

    def ahead(self, *plans: Plan) -> None:
        samples = self.gatherer.watch.samples
        self.cluster.fit(self.network, samples, plans, self.store, self.said.append)

    def __call__(self, plan: Plan) -> Calibrated:
        return calibrate(
            self.network, plan, self.gatherer, store=self.store, announce=self.said.append
        )


def check_equal(found: Calibrated, expected: Calibrated) -> None:
    assert found.errors == expected.errors
    assert found.layers == expected.layers
    assert found.plan == expected.plan
    for name, chain in expected.chains.items():
        both = zip(found.chains[name].kernels, chain.kernels, strict=True)
        assert all(torch.equal(one, other) for one, other in both)
        biases = (found.chains[name].bias, chain.bias)
        assert all(bias is not None for bias in biases)
        assert torch.equal(*biases)  # type: ignore[arg-type]


def test_what_the_cluster_fitted_is_what_is_fitted_here(
    network: Network, fake_ray: FakeRay, tmp_path: Path
) -> None:
    plans = plans_for(network)
    there, here = (Calibration(network, tmp_path / name) for name in ("there", "here"))
    there.ahead(*plans)
    assert [name for name, _ in fake_ray.calls] == ["_fit_apart"] * 2
    for plan in plans:
        check_equal(there(plan), here(plan))
        count = len(plan.rewritten)
        assert f"{count} of {count}: fitted before" in there.said
    # What is known is not asked for again, nor where it was fitted here.
    there.ahead(*plans)
    here.ahead(*plans)
    assert len(fake_ray.calls) == 2


def test_the_network_is_sent_once(
    torch_network: TorchNetwork, plans: list[Plan], fake_ray: FakeRay, tmp_path: Path
) -> None:
    there = Calibration(torch_network, tmp_path)
    for plan in plans:
        there.ahead(plan)
    (_, (name, content, *_)), (_, (again, same, *_)) = fake_ray.calls
    assert name == again
    assert content is same
    # What was sent is gone with the connection.
    fake_ray.job = "2"
    there.store.keep_errors(plans[0], {})
    there.ahead(plans[0])
    _, (_, other, *_) = fake_ray.calls[2]
    assert other is not content


@pytest.mark.parametrize(("jobs", "cores"), [(1, 4), (3, 1), (7, 1)])
def test_cores_are_shared_out_among_all_that_is_begun(
    jobs: int,
    cores: int,
    torch_network: TorchNetwork,
    plans: list[Plan],
    fake_ray: FakeRay,
    tmp_path: Path,
) -> None:
    fake_ray.cores = 8
    Calibration(torch_network, tmp_path, OnRay(jobs=jobs)).ahead(*plans)
    assert [given[-1] for _, given in fake_ray.calls] == [cores] * 2


def test_what_the_cluster_loses_is_fitted_here(
    torch_network: TorchNetwork, plans: list[Plan], fake_ray: FakeRay, tmp_path: Path
) -> None:
    there, here = (Calibration(torch_network, tmp_path / name) for name in ("there", "here"))
    fake_ray.lost = 1
    there.ahead(*plans)
    lost = [line for line in there.said if "which is calibrated here" in line]
    assert lost == ["the cluster lost a network, which is calibrated here: the node is gone"]
    for plan in plans:
        check_equal(there(plan), here(plan))
    assert sum("fitted before" in line for line in there.said) == 1


def test_what_is_wrong_there_is_told_as_here(
    torch_network: TorchNetwork, fake_ray: FakeRay, tmp_path: Path
) -> None:
    other = planned(twins(), "channel", "rank:2")
    with pytest.raises(PlanError, match="the plan is for another network"):
        Calibration(torch_network, tmp_path).ahead(other)


def test_a_network_that_is_not_made_of_what_a_machine_has_is_told(
    torch_network: TorchNetwork, plans: list[Plan], fake_ray: FakeRay, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(FakeRay, "put", lambda self, content: b"cnowhere\nNet\n.")
    with pytest.raises(TrpexportError, match=r"No module named 'nowhere'.*the same trpexport"):
        Calibration(torch_network, tmp_path).ahead(*plans)


def test_a_network_that_can_not_travel_is_told(
    torch_network: TorchNetwork, plans: list[Plan], fake_ray: FakeRay, tmp_path: Path
) -> None:
    vars(torch_network.model)["secret"] = iter(lambda: None, 1)
    with pytest.raises(TrpexportError, match=r"can't be sent to a cluster .*: calibrate it here"):
        Calibration(torch_network, tmp_path).ahead(*plans)


def test_what_waits_is_asked_whether_to_go_on(
    torch_network: TorchNetwork, plans: list[Plan], fake_ray: FakeRay, tmp_path: Path
) -> None:
    class Waiting:
        def __enter__(self) -> Waiting:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __call__(self) -> None:
            raise KeyboardInterrupt

    there = Calibration(torch_network, tmp_path, OnRay(waiting=Waiting))
    with pytest.raises(KeyboardInterrupt):
        there.ahead(*plans)
    assert fake_ray.cancelled == 2


def test_without_a_cluster_nothing_is_connected_to(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def is_initialized() -> bool:
        asked.append(True)
        return True

    monkeypatch.setattr(fake_ray, "is_initialized", is_initialized)
    with connected_to(None):
        assert not asked
    with connected_to(OnRay()):
        assert asked
