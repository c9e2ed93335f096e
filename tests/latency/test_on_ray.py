"""A node of a cluster times what is sent there, alone."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

import onnx
import pytest

from tests.latency.networks import SHAPE, FakeStopwatch, twins
from tests.ray_clusters import FakeRay
from trpexport.choose.by_latency import ByLatency
from trpexport.errors import DeviceError, ModelError, TrpexportError
from trpexport.inputs import Inputs
from trpexport.latency import on_ray
from trpexport.latency.on_ray import RayStopwatch
from trpexport.latency.stopwatch import Conditions
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.turns import working

_TIMED = """
import json, pathlib, sys
from trpexport.latency.on_ray import RayStopwatch
from trpexport.latency.stopwatch import Conditions

file, address, label = pathlib.Path(sys.argv[1]), *sys.argv[2:]
clock = RayStopwatch(Conditions(), address, label)
(first, second), (profile,) = clock.race([file, file], 0.05), clock.profiles([file], 3)
nodes = [node.operator for node in profile.nodes]
print(json.dumps({**clock.facts(), "speedup": second.speedup.mid, "nodes": nodes}))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A network whose weights are beside its file."""
    path = tmp_path / "net.onnx"
    twins().write_onnx(path, OnnxSettings())
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=512)
    return path


@pytest.fixture
def clock(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> RayStopwatch:
    """A cluster whose node is a device with known times."""
    fake_ray.resources["pi"] = 1.0
    monkeypatch.setattr(on_ray, "LocalStopwatch", lambda conditions: FakeStopwatch())
    return RayStopwatch(Conditions(), "auto", "pi")


def test_times_are_those_of_the_node(clock: RayStopwatch, file: Path) -> None:
    device = FakeStopwatch()
    clock.check()
    assert clock.race([file, file], 0.1) == device.race([file, file], 0.1)
    (found,), (expected,) = clock.profiles([file], 2), device.profiles([file], 2)
    assert found.nodes == expected.nodes
    assert clock.facts() == device.facts()
    assert clock.instruction_sets == ["avx2"]
    assert clock.at(Inputs.of(SHAPE)).conditions.shapes == {"input": SHAPE}


def test_what_is_at_work_on_the_node_is_waited_for(
    clock: RayStopwatch, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, found = Event(), list[Any]()
    alone = vars(on_ray)["alone"]
    monkeypatch.setattr(on_ray, "alone", lambda say: alone(lambda line: waits.set()))
    thread = Thread(target=lambda: found.append(clock.race([file], 0)))
    with working(lambda line: None):
        thread.start()
        assert waits.wait(20)
        assert not found
    thread.join(20)
    assert len(found) == 1


def test_what_can_not_be_timed_is_told(clock: RayStopwatch, file: Path, fake_ray: FakeRay) -> None:
    fake_ray.lost = 1
    with pytest.raises(DeviceError, match="lost a network that it timed: the node is gone"):
        clock.race([file], 0)

    def fails(device: object, files: object) -> None:
        raise ModelError("it can't be run")

    with pytest.raises(ModelError, match="it can't be run"):
        clock._done(fails, [file])
    with pytest.raises(TrpexportError, match=r"no node of the cluster is the device: .*phone"):
        RayStopwatch(Conditions(), "auto", "phone").race([file], 0)


def test_a_label_has_the_cluster_time() -> None:
    chooser = ByLatency(conditions=Conditions(threads=2)).on_cluster("auto", print, "pi")
    assert isinstance(chooser.timekeeper, RayStopwatch)
    assert chooser.timekeeper.conditions.threads == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray")
def test_the_node_of_a_cluster(ray_address: str, ray_place: dict[str, Any], file: Path) -> None:
    command = [sys.executable, "-c", _TIMED, str(file), ray_address, "trpexport_device"]
    told = json.loads(subprocess.check_output(command, timeout=500, **ray_place))
    assert 0.3 < told["speedup"] < 3
    assert told["nodes"].count("Conv") == 4
    assert told["device"]["instruction_sets"]
