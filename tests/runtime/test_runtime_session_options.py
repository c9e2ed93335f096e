"""What ONNX Runtime is told before it opens a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from trpexport.errors import TrpexportError
from trpexport.runtime.session import open_session
from trpexport.runtime.session_options import VARIATIONS, told

WriteOnnx = Callable[..., Path]


def test_an_unknown_graph_optimization_lists_the_known(linear: WriteOnnx) -> None:
    with pytest.raises(TrpexportError, match="'most': choose from disable, basic, extended, all"):
        open_session(linear(), graph_optimization="most")


@pytest.fixture
def options_of(linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Opens a network, and returns the session options that ONNX Runtime was given."""

    real = onnxruntime.InferenceSession

    def opened(**settings: Any) -> Any:
        seen: list[Any] = []

        def spy(content: Any, options: Any, *rest: Any, **named: Any) -> Any:
            seen.append(options)
            return real(content, options, *rest, **named)

        monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
        open_session(linear(), **settings)
        return seen[0]

    return opened


def test_operators_run_one_after_another(options_of: Callable[..., Any]) -> None:
    options = options_of(threads=2)
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options_of().intra_op_num_threads == 0  # as ONNX Runtime likes


@pytest.mark.parametrize("arena", [True, False])
def test_the_arena_is_a_choice(arena: bool, options_of: Callable[..., Any]) -> None:
    assert options_of(arena=arena).enable_cpu_mem_arena == arena


def test_memory_patterns_and_prepacking_are_choices(options_of: Callable[..., Any]) -> None:
    options = options_of(memory_pattern=False, prepacking=False)
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert options_of().enable_mem_pattern


@pytest.mark.parametrize("options", VARIATIONS)
def test_what_is_varied_does_not_change_what_is_computed(
    linear: WriteOnnx, options: dict[str, Any]
) -> None:
    path = linear()
    inputs = open_session(path).random_inputs()
    usual, varied = (open_session(path, **some).run(inputs) for some in ({}, options))
    for name, array in usual.items():
        np.testing.assert_allclose(varied[name], array, rtol=1e-5)
    assert told({**options, "prepacking": True}).endswith("prepacking on")


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("disable", onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL),
        ("basic", onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC),
        ("extended", onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED),
        ("all", onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL),
    ],
)
def test_graph_optimization_is_set(name: str, level: Any, options_of: Callable[..., Any]) -> None:
    assert options_of(graph_optimization=name).graph_optimization_level == level


@pytest.mark.parametrize(("allowed", "entry"), [(True, "1"), (False, "0")])
def test_spinning_is_set(allowed: bool, entry: str, options_of: Callable[..., Any]) -> None:
    key = "session.intra_op.allow_spinning"
    assert options_of(allow_spinning=allowed).get_session_config_entry(key) == entry
    with pytest.raises(RuntimeError, match=key):
        options_of(allow_spinning=None).get_session_config_entry(key)
