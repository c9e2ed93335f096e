"""Profiles that are taken on another machine: what is asked of it, and what comes back."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trpexport.errors import ModelError, TrpexportError
from trpexport.measure.children import run_child
from trpexport.measure.inputs import read_inputs
from trpexport.measure.machine import machine_facts
from trpexport.measure.profile.profile import NodeTime, Profile, ProfileSettings, profile_models
from trpexport.measure.settings import ModelFile
from trpexport.runtime.providers import NO_OPTIONS, PROVIDERS, Options
from trpexport.runtime.session_options import recommended
from trpexport.tensors import NO_SHAPES, Shapes


@dataclass(frozen=True)
class ProfileJob:
    """Networks to profile in turns; without any, what is asked for is what machine it is.

    Attributes:
        models: the files.
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`.
        provider_options: its options.
        threads: threads that one operator is spread over.
        batch: images at a time; None for as many as the file says.
        shapes: whole input shapes by name.
        runs: runs of each network that are kept.
        data: a ``.npy`` or ``.npz`` file with real inputs; None draws them.
    """

    models: tuple[ModelFile, ...]
    provider: str = "cpu"
    provider_options: Options = field(default_factory=lambda: NO_OPTIONS)
    threads: int = 1
    batch: int | None = None
    shapes: Shapes = field(default_factory=lambda: NO_SHAPES)
    runs: int = 1
    data: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON-ready data."""
        return {
            "kind": "profile",
            "models": [model.to_json() for model in self.models],
            "provider": self.provider,
            "provider_options": dict(self.provider_options),
            "threads": self.threads,
            "batch": self.batch,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "runs": self.runs,
            "data": self.data,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProfileJob:
        """Return the job that :meth:`to_json` wrote."""
        facts = {name: value for name, value in data.items() if name != "kind"}
        return cls(
            **{
                **facts,
                "models": tuple(map(ModelFile.from_json, data["models"])),
                "shapes": {name: tuple(shape) for name, shape in data["shapes"].items()},
            }
        )

    def run(self) -> dict[str, Any]:
        """Take the profiles, and return them with the machine, JSON-ready.

        In a process that is there for that: what a provider needs for times that can be believed
        is set in its environment.

        Raises:
            ModelError: a network can't be run, or its trace can't be read.
            MissingDependencyError: ONNX Runtime or the provider is not installed.
        """
        os.environ.update(PROVIDERS[self.provider].environment)
        settings = ProfileSettings(
            provider=self.provider,
            provider_options=self.provider_options,
            threads=self.threads,
            batch=self.batch,
            shapes=self.shapes,
            runs=self.runs,
            inputs=None if self.data is None else read_inputs(Path(self.data)),
        )
        files = [Path(model.path) for model in self.models]
        sessions = [recommended(model.advice, self.provider, self.threads) for model in self.models]
        profiles = profile_models(files, settings, sessions) if files else []
        return {"machine": machine_facts(), "profiles": [_content(one) for one in profiles]}


def profiled_apart(job: ProfileJob) -> list[Profile]:
    """Take profiles in a process of its own.

    Raises:
        ModelError: a network can't be run, or the process fails.
    """
    done = run_child("trpexport.measure.profile.jobs", job.to_json())
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ModelError(lines[-1] if lines else f"a profile ended with {done.returncode}")
    return profiles_of(json.loads(done.stdout.splitlines()[-1]))


def profiles_of(record: Mapping[str, Any]) -> list[Profile]:
    """Return the profiles that :meth:`ProfileJob.run` made elsewhere."""
    return [_profile(content) for content in record["profiles"]]


def _content(profile: Profile) -> dict[str, Any]:
    optimized = profile.optimized
    return {
        "model": profile.model,
        "provider": profile.provider,
        "threads": profile.threads,
        "shapes": {name: list(shape) for name, shape in profile.shapes.items()},
        "wall_samples": profile.wall_samples,
        "optimized": None if optimized is None else base64.b64encode(optimized).decode(),
        "nodes": [vars(node) for node in profile.nodes],
    }


def _profile(content: Mapping[str, Any]) -> Profile:
    optimized = content["optimized"]
    return Profile(
        model=content["model"],
        provider=content["provider"],
        threads=content["threads"],
        shapes={name: tuple(shape) for name, shape in content["shapes"].items()},
        nodes=tuple(map(_node, content["nodes"])),
        wall_samples=tuple(content["wall_samples"]),
        optimized=None if optimized is None else base64.b64decode(optimized),
    )


def _node(content: Mapping[str, Any]) -> NodeTime:
    shapes = {key: tuple(map(tuple, content[key])) for key in ("input_shapes", "output_shapes")}
    return NodeTime(**{**content, **shapes, "samples": tuple(content["samples"])})


if __name__ == "__main__":
    try:
        found = ProfileJob.from_json(json.load(sys.stdin)).run()
    except TrpexportError as error:
        sys.exit(" ".join(str(error).split()))
    sys.stdout.write(f"{json.dumps(found)}\n")
