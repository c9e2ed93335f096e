"""Reading the trace that ONNX Runtime's profiler writes: which node ran when, and how long."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpexport.errors import ModelError
from trpexport.tensors import Shape

MICROSECOND = 1e-6  # seconds; the profiler cuts its times to whole ones

_KERNEL = "_kernel_time"  # what the profiler appends to a node's name
_RUN = "model_run"
_EXECUTOR = "::Execute"


@dataclass(frozen=True)
class NodeEvent:
    """One node that ran.

    Attributes:
        name: its name in the optimized graph; ``operator_index`` for a node without one.
        operator: its operator, without the domain.
        provider: ONNX Runtime's name for the provider that it ran on.
        input_shapes: shapes of the tensors that went in, weights included; those that are left
            out leave no gap.
        output_shapes: shapes of what came out.
        start: seconds since the session began.
        seconds: time in its kernel.
    """

    name: str
    operator: str
    provider: str
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    start: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """One inference.

    Attributes:
        seconds: wall time inside ONNX Runtime, under its profiler.
        nodes: the nodes, in the order in which they ran. A node with a graph inside (Loop, If) is
            one node, and has the time of all that ran inside it.
    """

    seconds: float
    nodes: tuple[NodeEvent, ...]


def read_trace(path: Path, label: str) -> tuple[Run, ...]:
    """Read the runs in a trace; one that the profiler did not see to its end is left out.

    The format is Chrome's trace events: times in microseconds, an event written when it ends.

    Args:
        path: the JSON file.
        label: what the network is called in messages.

    Raises:
        ModelError: the file can't be read, or is no such trace.
    """
    try:
        events = json.loads(path.read_bytes())
        return _runs(events)
    except OSError as error:
        reason = error.strerror or str(error)
    except KeyError as error:
        reason = f"an event lacks {error}"
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())
    raise ModelError(
        f"the profile of {label} can't be read ({reason}): see that the disk for temporary files "
        "is not full, and run again"
    )


def _runs(events: Any) -> tuple[Run, ...]:
    if not isinstance(events, list):
        raise TypeError("it is no list of events")
    runs: list[Run] = []
    nodes: list[NodeEvent] = []
    executor: float | None = None  # start of an executor that ended after the last node
    for event in events:
        category, name = event["cat"], event["name"]
        if category == "Node" and name.endswith(_KERNEL):
            if executor is not None:
                # That executor was not the run's own: its nodes are inside this one.
                while nodes and nodes[-1].start >= executor:
                    nodes.pop()
                executor = None
            nodes.append(_node(event))
        elif category == "Session" and name.endswith(_EXECUTOR):
            executor = _seconds(event, "ts")
        elif category == "Session" and name == _RUN:
            runs.append(Run(_seconds(event, "dur"), tuple(nodes)))
            nodes, executor = [], None
    return tuple(runs)


def _node(event: Mapping[str, Any]) -> NodeEvent:
    facts = event["args"]
    return NodeEvent(
        name=event["name"].removesuffix(_KERNEL),
        operator=_text(facts, "op_name"),
        provider=_text(facts, "provider"),
        input_shapes=_shapes(facts["input_type_shape"]),
        output_shapes=_shapes(facts["output_type_shape"]),
        start=_seconds(event, "ts"),
        seconds=_seconds(event, "dur"),
    )


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r}, not a text")
    return value


def _seconds(event: Mapping[str, Any], key: str) -> float:
    value = event[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} is {value!r}, not a number")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{key} is {value!r}, not a time")
    return value * MICROSECOND


def _shapes(tensors: list[Mapping[str, list[int]]]) -> tuple[Shape, ...]:
    """Return the shapes out of entries such as ``{"float": [1, 16, 32, 32]}``."""
    return tuple(tuple(map(int, dims)) for tensor in tensors for dims in tensor.values())
