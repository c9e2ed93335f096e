from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trpexport.errors import MissingDependencyError, ModelError, TrpexportError
from trpexport.measure.profile import profile as module
from trpexport.measure.profile.profile import (
    NodeTime,
    Profile,
    ProfileSettings,
    profile_model,
    profile_models,
)

WriteOnnx = Callable[..., Path]
node = helper.make_node


@pytest.fixture(autouse=True)
def empty_temporary_directory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Gives each test a temporary directory of its own, which it has to leave empty."""
    path = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    assert list(path.iterdir()) == []


@pytest.fixture(scope="module")
def chain(write_onnx: WriteOnnx) -> Path:
    """Two convolutions and what follows them, in the order of their names."""
    generator = np.random.default_rng(0)
    return write_onnx(
        [
            node("Conv", ["x", "w1"], ["a"], name="n1", pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"], name="n2"),
            node("Conv", ["b", "w2"], ["c"], name="n3"),
            node("Sigmoid", ["c"], ["y"], name="n4"),
        ],
        {"x": ("n", 3, 12, 12)},
        {"y": ("n", 5, 12, 12)},
        {
            "w1": generator.standard_normal((4, 3, 3, 3)).astype(np.float32),
            "w2": generator.standard_normal((5, 4, 1, 1)).astype(np.float32),
        },
    )


def test_every_node_in_the_order_in_which_it_runs(chain: Path) -> None:
    profile = profile_model(chain, ProfileSettings(graph_optimization="disable", runs=9))
    assert [(n.name, n.operator) for n in profile.nodes] == [
        ("n1", "Conv"),
        ("n2", "Relu"),
        ("n3", "Conv"),
        ("n4", "Sigmoid"),
    ]
    assert {n.provider for n in profile.nodes} == {"CPUExecutionProvider"}
    assert profile.nodes[0].input_shapes == ((1, 3, 12, 12), (4, 3, 3, 3))
    assert profile.nodes[3].output_shapes == ((1, 5, 12, 12),)
    assert all(len(n.samples) == 9 for n in profile.nodes)
    assert profile.runs == 9
    assert (profile.model, profile.provider, profile.threads) == (str(chain), "cpu", 1)


def test_the_nodes_fit_into_the_wall_time(chain: Path) -> None:
    profile = profile_model(chain, ProfileSettings(runs=1, batch=16))
    assert 0 < profile.coverage <= 1
    assert profile.node_seconds == pytest.approx(sum(n.seconds for n in profile.nodes))
    assert profile.node_seconds + profile.overhead_seconds == pytest.approx(profile.wall_seconds)


def test_fusion_leaves_fewer_nodes(chain: Path) -> None:
    profile = profile_model(chain, ProfileSettings(graph_optimization="extended", runs=1))
    assert [n.operator for n in profile.nodes] == ["FusedConv", "FusedConv"]
    assert profile.optimized is not None
    written = onnx.load_model_from_string(profile.optimized)
    assert {n.op_type for n in written.graph.node} == {"FusedConv"}


def test_large_weights_stay_out_of_the_graph_that_is_kept(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("MatMul", ["x", "w"], ["y"])],
        {"x": (1, 500)},
        {"y": (1, 500)},
        {"w": np.ones((500, 500), np.float32)},
    )
    profile = profile_model(path, ProfileSettings(runs=1))
    assert profile.optimized is not None
    assert len(profile.optimized) < 2_000


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (ProfileSettings(runs=1), (1, 3, 12, 12)),
        (ProfileSettings(runs=1, batch=4), (4, 3, 12, 12)),
        (ProfileSettings(runs=1, shapes={"x": (2, 3, 12, 12)}), (2, 3, 12, 12)),
        (ProfileSettings(runs=1, inputs={"x": np.ones((3, 3, 12, 12), "f4")}), (3, 3, 12, 12)),
    ],
)
def test_inputs(chain: Path, settings: ProfileSettings, shape: tuple[int, ...]) -> None:
    profile = profile_model(chain, settings)
    assert profile.shapes == {"x": shape}
    assert profile.nodes[0].input_shapes[0] == shape


def test_a_loop_is_one_node(tmp_path: Path) -> None:
    def info(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            node("MatMul", ["h", "w"], ["h2"], name="inside"),
            node("Identity", ["c"], ["c2"], name="condition"),
        ],
        "body",
        [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("h", 1, [4, 4])],
        [info("c2", TensorProto.BOOL, []), info("h2", 1, [4, 4])],
    )
    graph = helper.make_graph(
        [
            node("Relu", ["x"], ["a"], name="before"),
            node("Loop", ["n", "yes", "a"], ["b"], name="loop", body=body),
            node("Neg", ["b"], ["y"], name="after"),
        ],
        "graph",
        [info("x", 1, [4, 4])],
        [info("y", 1, [4, 4])],
        [
            numpy_helper.from_array(np.array(3), "n"),
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "loop.onnx")
    profile = profile_model(tmp_path / "loop.onnx", ProfileSettings(runs=2))
    assert [n.name for n in profile.nodes] == ["before", "loop", "after"]


class FakeSession:
    """A network of one node whose n-th run takes n microseconds; notes who runs when."""

    inputs = ()
    batch_size = None
    lost = 0  # runs at the end that the profiler does not see

    def __init__(self, label: str, trace: Path, calls: list[str]) -> None:
        self.label, self.trace, self.calls = label, trace, calls
        self.events: list[dict[str, Any]] = []

    def random_inputs(self, *_: Any) -> dict[str, Any]:
        return {"x": np.zeros((1, 2))}

    def run(self, _: Any) -> None:
        self.calls.append(self.label)
        times = {"ts": 0, "dur": self.calls.count(self.label)}
        facts: dict[str, Any] = {"op_name": "Relu", "provider": "P"}
        facts |= {"input_type_shape": [], "output_type_shape": []}
        self.events += [
            {"cat": "Node", "name": self.node_name + "_kernel_time", "args": facts, **times},
            {"cat": "Session", "name": "model_run", **times},
        ]

    @property
    def node_name(self) -> str:
        return "relu"

    def end_profiling(self) -> Path:
        kept = self.events[: len(self.events) - 2 * self.lost]
        self.trace.write_text(json.dumps(kept))
        return self.trace


class Restless(FakeSession):
    """Its node has another name in each run."""

    @property
    def node_name(self) -> str:
        return f"relu_{len(self.calls)}"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def open_session(path: Path, *, profile_prefix: Path, **_: Any) -> FakeSession:
        kind = Restless if path.name == "restless" else FakeSession
        session = kind(path.name, profile_prefix, calls)
        session.lost = int(path.name == "lost")
        return session

    monkeypatch.setattr(module, "open_session", open_session)
    return calls


def test_warm_up_and_the_first_run_of_each_turn_are_dropped(calls: list[str]) -> None:
    """5 runs to warm up, then turns of 1 + 4, the last of 1 + 2 to make 10."""
    profile = profile_model(Path("net"), ProfileSettings(runs=10))
    micros = [7, 8, 9, 10, 12, 13, 14, 15, 17, 18]
    assert profile.nodes[0].samples == pytest.approx([n * 1e-6 for n in micros])
    assert profile.wall_samples == pytest.approx([n * 1e-6 for n in micros])
    assert profile.wall_seconds == pytest.approx(12.5e-6)
    assert profile.nodes[0].mad == pytest.approx(3e-6)  # of 5.5 4.5 3.5 2.5 .5 .5 1.5 2.5 4.5 5.5
    assert len(calls) == 18


def test_networks_take_turns_in_shuffled_order(calls: list[str]) -> None:
    profiles = profile_models([Path("a"), Path("b")], ProfileSettings(runs=40))
    assert [p.model for p in profiles] == ["a", "b"]
    turns = calls[10:]
    assert len(turns) == 2 * 10 * 5
    firsts = set()
    for start in range(0, len(turns), 10):
        block = turns[start : start + 10]
        assert block in (["a"] * 5 + ["b"] * 5, ["b"] * 5 + ["a"] * 5)
        firsts.add(block[0])
    assert firsts == {"a", "b"}


def test_networks_of_different_sizes_run_on_their_own(write_onnx: Callable[..., Path]) -> None:
    paths = [
        write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", size)}, {"y": None})
        for size in (4, "s")
    ]
    profiles = profile_models(paths, ProfileSettings(runs=1, shapes={"x": (2, 9)}))
    assert [profile.shapes for profile in profiles] == [{"x": (2, 4)}, {"x": (2, 9)}]


def test_a_trace_that_lacks_runs(calls: list[str]) -> None:
    with pytest.raises(ModelError, match=r"saw 17 of the 18 runs of lost.*ask for fewer runs"):
        profile_model(Path("lost"), ProfileSettings(runs=10))


def test_runs_that_differ(calls: list[str]) -> None:
    with pytest.raises(ModelError, match="runs of restless differ"):
        profile_model(Path("restless"))


def test_a_graph_that_cannot_be_written_is_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with a provider that compiles parts of the graph."""

    def open_session(
        path: Path, *, profile_prefix: Path, optimized_path: Path | None = None, **_: Any
    ) -> FakeSession:
        if optimized_path is not None:
            raise ModelError("Unable to serialize model as it contains compiled nodes.")
        return FakeSession(path.name, profile_prefix, [])

    monkeypatch.setattr(module, "open_session", open_session)
    assert profile_model(Path("net")).optimized is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (ProfileSettings(runs=0), TrpexportError, "can't profile 0 runs"),
        (ProfileSettings(threads=0), TrpexportError, "0 threads"),
        (ProfileSettings(provider="cuda"), MissingDependencyError, "onnxruntime-gpu"),
        (ProfileSettings(shapes={"z": (1,)}), ModelError, "no input 'z'"),
        (ProfileSettings(inputs={"x": np.ones((1, 4, 12, 12), "f4")}), ModelError, "needs the"),
        (ProfileSettings(graph_optimization="most"), TrpexportError, "graph optimization"),
    ],
)
def test_wrong_settings(
    chain: Path, settings: ProfileSettings, error: type[TrpexportError], message: str
) -> None:
    with pytest.raises(error, match=message):
        profile_model(chain, settings)


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_text("this is text")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        profile_model(tmp_path / "no.onnx")


def test_json() -> None:
    nodes = (
        NodeTime("a", "Conv", "P", (), ((1, 2),), (1.0, 3.0, 2.0)),
        NodeTime("b", "Relu", "P", (), (), (1.0, 1.0, 5.0)),
    )
    profile = Profile("net.onnx", "cpu", None, {"x": (1, 3)}, nodes, (4.0, 5.0, 6.0), b"graph")
    facts = json.loads(json.dumps(profile.to_json()))
    assert facts["nodes"][0] == {
        "name": "a",
        "operator": "Conv",
        "provider": "P",
        "output_shapes": [[1, 2]],
        "seconds": 2.0,
        "mad": 1.0,
    }
    assert (facts["node_seconds"], facts["wall_seconds"], facts["wall_mad"]) == (3.0, 5.0, 1.0)
    assert (facts["overhead_seconds"], facts["coverage"], facts["runs"]) == (2.0, 0.6, 3)
    assert "graph" not in repr(profile)


def test_times_too_short_to_tell_have_no_coverage() -> None:
    assert Profile("net.onnx", "cpu", 1, {}, (), (0.0,)).coverage == 0
