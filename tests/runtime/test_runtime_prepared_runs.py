"""Runs for which all was prepared that can be, so that timing them measures the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpexport.errors import ModelError
from trpexport.runtime.session import open_session

WriteOnnx = Callable[..., Path]


def test_a_prepared_run_runs_on_the_inputs(
    linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(linear())
    runs: list[Any] = []
    monkeypatch.setattr(session._runtime, "run", lambda *args: runs.append(args))
    x = np.eye(3, dtype=np.float32)
    run = session.prepared({"input": x})
    assert runs == []
    run()
    run()
    assert len(runs) == 2
    assert runs[1][0] == ["output"]
    assert runs[1][1]["input"] is x


def test_a_bound_run_waits_for_the_device(
    linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(linear())
    binding = session._runtime.io_binding()
    calls: list[str] = []

    def spy(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def called(*args: Any) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(owner, name, called)

    spy(session._runtime, "run_with_iobinding")
    spy(binding, "synchronize_outputs")
    monkeypatch.setattr(session._runtime, "io_binding", lambda: binding)
    run = session.prepared({"input": np.eye(3, dtype=np.float32)}, device="cpu")
    assert calls == []
    run()
    run()
    assert calls == ["run_with_iobinding", "synchronize_outputs"] * 2
    (output,) = binding.get_outputs()
    weight = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_allclose(output.numpy(), weight, rtol=1e-6)


def test_a_prepared_run_checks_its_inputs_and_tells_of_failures(
    linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(linear())
    with pytest.raises(ModelError, match=r"needs the input input float32\[batchx3\]"):
        session.prepared({"input": np.zeros((1, 4), np.float32)})
    inputs = session.random_inputs()
    with pytest.raises(ModelError, match=r"model\.onnx failed while running: .*nowhere"):
        session.prepared(inputs, device="nowhere")

    def fail(*args: Any) -> None:
        raise RuntimeError("out of\nmemory")

    run = session.prepared(inputs)
    monkeypatch.setattr(session._runtime, "run", fail)
    with pytest.raises(ModelError, match="failed while running: out of memory"):
        run()
