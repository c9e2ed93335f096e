"""What stands in other people's pipelines: valid by schema, and doing what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

TEMPLATES = ROOT / "docs/ci"

# The required and known keys of pre-commit's own documentation ("Creating new hooks").
HOOKS_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["id", "name", "entry", "language"],
        "properties": {
            **{
                name: {"type": "string"} for name in ("id", "name", "entry", "files", "description")
            },
            "language": {"enum": ["python", "system", "script", "node", "docker"]},
            "additional_dependencies": {"type": "array", "items": {"type": "string"}},
            **{name: {"type": "boolean"} for name in ("pass_filenames", "require_serial")},
        },
        "additionalProperties": False,
    },
}


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-actions", ["action.yml"]),
        ("vendor.github-workflows", ["docs/ci/github-workflow.yml"]),
        ("vendor.gitlab-ci", ["docs/ci/gitlab-gate.yml", "docs/ci/gitlab-example.yml"]),
    ],
)
def test_valid_by_schema(schema: str, files: list[str], tmp_path: Path) -> None:
    def check(*paths: Path) -> int:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
        return subprocess.run(
            [*command, *map(str, paths)], capture_output=True, check=False
        ).returncode

    assert check(*(ROOT / file for file in files)) == 0
    broken = tmp_path / "broken.yml"
    broken.write_text("jobs: 3\nruns: 4\nscript: {}\ngate: 3\n")
    assert check(broken) != 0


def test_the_hook() -> None:
    hooks = load(ROOT / ".pre-commit-hooks.yaml")
    jsonschema.validate(hooks, HOOKS_SCHEMA)
    offered = {hook["id"] for hook in hooks}
    used = load(TEMPLATES / "pre-commit-config.yaml")["repos"][0]
    assert {hook["id"] for hook in used["hooks"]} <= offered
    assert used["rev"]


def test_examples_use_inputs_that_are_there() -> None:
    action = load(ROOT / "action.yml")
    steps = load(TEMPLATES / "github-workflow.yml")["jobs"]["gate"]["steps"]
    step = next(step for step in steps if "trpexport" in step.get("uses", ""))
    assert step["with"].keys() <= action["inputs"].keys()
    required = {name for name, facts in action["inputs"].items() if facts.get("required")}
    assert required <= step["with"].keys()
    template = load(TEMPLATES / "gitlab-gate.yml")[".trpexport-gate"]
    example = load(TEMPLATES / "gitlab-example.yml")["gate"]
    assert example["variables"].keys() <= template["variables"].keys()
    assert example["extends"] == ".trpexport-gate"


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A ``trpexport`` that writes down its arguments and exits with $CODE."""
    program = tmp_path / "bin" / "trpexport"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "open('arguments.json', 'w').write(json.dumps(sys.argv[1:]))\n"
        "sys.exit(int(os.environ['CODE']))\n"
    )
    program.chmod(0o755)
    return program


def run_script(script: str, stub: Path, shell: list[str], **values: str) -> tuple[int, list[str]]:
    environment = {
        **os.environ, **values, "PATH": f"{stub.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        [*shell, "-c", script], env=environment, cwd=stub.parent, check=False, capture_output=True
    )
    return done.returncode, json.loads((stub.parent / "arguments.json").read_text())


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_action_runs_the_gate(stub: Path, code: int) -> None:
    action = load(ROOT / "action.yml")
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "gate")
    values = {
        name: action["inputs"][expression.split(".")[1].rstrip(" }")].get("default", "")
        for name, expression in step["env"].items()
    }
    output = stub.parent / "output"
    values |= {
        "CANDIDATE": "a b; touch x",  # one argument, whatever it holds
        "ARGS": "--max-drop 1.0\n--min-speedup 1.3",
        "GITHUB_OUTPUT": str(output),
        "CODE": str(code),
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
    returned, arguments = run_script(step["run"], stub, shell, **values)
    assert returned == code
    assert arguments == [
        "gate", "--candidate", "a b; touch x", "--junit", "trpexport-gate.xml",
        "--save", "trpexport-gate.json", "--max-drop", "1.0", "--min-speedup", "1.3",
    ]  # fmt: skip
    assert output.read_text() == f"passed={'true' if code == 0 else 'false'}\n"
    assert not (stub.parent / "x").exists()


@pytest.mark.parametrize("code", [0, 1])
def test_the_gitlab_template_runs_the_gate(stub: Path, code: int) -> None:
    template = load(TEMPLATES / "gitlab-gate.yml")[".trpexport-gate"]
    values = template["variables"] | load(TEMPLATES / "gitlab-example.yml")["gate"]["variables"]
    script = "\n".join(template["script"])
    returned, arguments = run_script(script, stub, ["sh", "-e"], **values, CODE=str(code))
    assert returned == code
    assert arguments == [
        "gate", "--candidate", "models/decomposed", "--baseline", "models/original",
        "--data", "imagefolder:data/validation", "--junit", "trpexport-gate.xml",
        "--save", "trpexport-gate.json", "--max-drop", "1.0", "--min-macs-ratio", "2",
        "--min-speedup", "1.3",
    ]  # fmt: skip
    assert template["artifacts"]["reports"]["junit"] in arguments
