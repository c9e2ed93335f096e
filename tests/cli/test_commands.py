"""The commands on a real checkpoint, from typing to exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import QUICK, Run
from tests.data import cifar10_test_images
from trpexport import bundle
from trpexport.runtime.session import open_session, run_in_batches


@pytest.fixture(scope="module")
def checkpoint(shared: Path) -> Path:
    return shared / "checkpoints/resnet20-12fca82f.th"


def accuracy(shared: Path, out: Path) -> float:
    images, labels = cifar10_test_images(shared, 517)
    session = open_session(out / bundle.MODEL)
    logits = run_in_batches(session, {"input": images.numpy()})["output"]
    return 100 * float((logits.argmax(1) == labels.numpy()).mean())


@pytest.mark.parametrize(
    ("options", "top1"),
    [(("--verify-seconds", "1"), 84.5), (("--stride-1-only", *QUICK), 86.0)],
)
def test_decompose_a_real_checkpoint(
    run: Run, shared: Path, tmp_path: Path, options: tuple[str, ...], top1: float
) -> None:
    checkpoint, out = shared / "checkpoints/resnet20-12fca82f.th", tmp_path / "out"
    energy = ("--scheme", "spatial", "--criterion", "energy:0.9")
    result = run("decompose", checkpoint, *energy, *options, "-o", out)
    assert result.code == 0, result.err
    assert "resnet20-a, spatial, energy:0.9" in result.out
    assert "13 of 48" in result.out
    assert f"trpexport verify {out}" in result.out
    assert accuracy(shared, out) == pytest.approx(top1, abs=2.5)
    assert run("verify", out).code == 0


def test_nothing_to_do_shows_what_would_do(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("decompose", checkpoint, "--scheme", "spatial")
    assert result.code == 3
    assert "no layer of resnet20-a gets cheaper" in result.error
    assert re.search(r"energy:0\.9 +18 of 20 +1\.45x +31\.2 %", result.out)
    commands = re.findall(r"^  trpexport (.*)$", result.out, re.MULTILINE)
    # Calibration first, then TRP, then another criterion.
    calibrated = f"{checkpoint} --scheme spatial --calib imagefolder:DIR --target-macs 0.5"
    trained = f"train --arch resnet20-a --init {checkpoint} --data imagefolder:DIR --trp"
    assert commands[:2] == [f"decompose {calibrated}", f"{trained} --target-macs 0.5"]
    command = commands[2]
    assert not list(tmp_path.iterdir())
    # The command that it suggests works as it stands.
    assert run(*command.split(), *QUICK).code == 0
    assert (tmp_path / "resnet20-12fca82f-spatial" / bundle.MODEL).is_file()
    facts = json.loads(run("decompose", checkpoint, "-o", tmp_path / "x", "--json").out)
    assert (facts["exit_code"], len(facts["next"])) == (3, 3)
    assert all("--json" not in command for command in facts["next"])
    assert {choice["criterion"] for choice in facts["choices"]} >= {"value:0.05", "vbmf"}


def test_an_edited_plan_is_followed(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert run("decompose", checkpoint, "--criterion", "energy:0.9", "-o", first, *QUICK).code == 0
    plan = json.loads((first / bundle.PLAN).read_text())
    layers = {layer["name"]: layer for layer in plan["layers"]}
    layers["layer3.2.conv2"]["rank"] = 7
    layers["layer1.0.conv1"]["scheme"] = None
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(plan))
    result = run("decompose", checkpoint, "--plan", edited, "-o", tmp_path / "second", *QUICK)
    assert result.code == 0, result.err
    assert re.search(r"layer3\.2\.conv2 .* 7 of 192", result.out)
    assert re.search(r"layer1\.0\.conv1 +16->16 3x3 +kept", result.out)


def test_json_says_the_same(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    options = ("--criterion", "energy:0.9", "-o", tmp_path / "out", "--json", *QUICK)
    facts = json.loads(run("decompose", checkpoint, *options).out)
    assert facts["architecture"] == "resnet20-a"
    assert facts["layers_rewritten"] == 18
    assert facts["macs"]["before"] == 40_551_040
    report = json.loads((tmp_path / "out" / bundle.REPORT).read_text())
    told = {"bundle": str(tmp_path / "out"), "next": facts["next"]}
    assert facts == {**told, **report}


def test_export_and_verify(run: Run, checkpoint: Path, shared: Path, tmp_path: Path) -> None:
    dense, other = tmp_path / "dense", tmp_path / "other"
    result = run("export", checkpoint, "-o", dense, *QUICK)
    assert result.code == 0, result.err
    assert accuracy(shared, dense) == pytest.approx(91.3, abs=0.1)
    assert run("decompose", checkpoint, "--criterion", "rank:4", "-o", other, *QUICK).code == 0

    model, candidate = dense / bundle.MODEL, other / bundle.MODEL
    assert run("verify", model, model).code == 0
    assert run("verify", dense, dense).code == 0
    assert run("verify", model, dense).code == 0
    for pair in ((model, candidate), (dense, other), (candidate, dense)):
        result = run("verify", *pair)
        assert result.code == 4
        assert "not the same network" in result.error
        assert "cosine" in result.out
    facts = json.loads(run("verify", dense, "--json").out)
    assert facts["is_equivalent"] is True


def test_verify_needs_something_to_compare_with(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    assert "give a bundle, or a second ONNX file" in run("verify", tmp_path / "a.onnx").error


def test_a_changed_bundle_is_noticed(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    assert run("export", checkpoint, "-o", tmp_path / "out", *QUICK).code == 0
    with (tmp_path / "out" / bundle.GOLDEN).open("ab") as file:
        file.write(b"!")
    result = run("verify", tmp_path / "out")
    assert result.code == 2
    assert "was changed after the export" in result.error


def test_inspect(run: Run, checkpoint: Path) -> None:
    result = run("inspect", checkpoint, "--criterion", "energy:0.9", "--criterion", "vbmf")
    assert result.code == 0, result.err
    assert re.search(r"layer1\.0\.conv1 +16->16 3x3 +█[▁-█ ]+ 48 +23 +13 ", result.out)
    assert re.search(r"MACs saved +1\.45x", result.out)
    facts = json.loads(run("inspect", checkpoint, "--json").out)
    layer = facts["layers"][1]
    assert layer["break_even_rank"] == 23  # 16·16·9 = 2304 = 24 x (16·3 + 16·3): 24 saves nothing
    assert len(layer["spectrum"]) == layer["full_rank"] == 48
    assert layer["ranks"]["energy:0.9"] == 13


def test_flops_of_a_checkpoint_and_of_its_export_agree(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    exported = run("export", checkpoint, "-o", tmp_path / "out", "--verify-seconds", "0")
    assert exported.code == 0
    torch_side = json.loads(run("flops", checkpoint, "--json").out)
    for target in (tmp_path / "out", tmp_path / "out" / bundle.MODEL):
        onnx_side = json.loads(run("flops", target, "--json").out)
        assert onnx_side["macs"] == torch_side["macs"] == 40_551_040
        assert [x["name"] for x in onnx_side["layers"]] == [x["name"] for x in torch_side["layers"]]
    assert torch_side["parameters"] == 269_722
    text = run("flops", checkpoint).out
    assert re.search(r"all +40\.6 M +81\.1 M +270 k", text)
    assert re.search(r"Left out: biases, .*BatchNorm2d \(19\)", text)


def test_real_inputs(run: Run, checkpoint: Path, shared: Path, tmp_path: Path) -> None:
    images, _ = cifar10_test_images(shared, 64)
    np.save(tmp_path / "images.npy", images.numpy())
    options = ("--criterion", "energy:0.9", "--inputs", tmp_path / "images.npy", *QUICK)
    result = run("decompose", checkpoint, *options, "-o", tmp_path / "out", "--json")
    steps = {step["name"]: step for step in json.loads(result.out)["steps"]}
    assert steps["decompose"]["outputs"]["output"]["top1_agreement"] > 0.7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["decompose"], "Missing argument 'NETWORK'"),
        (["decompose", "x.pth", "--scheem", "spatial"], "No such option"),
        (["decompoze"], "No such command 'decompoze'"),
        (["decompose", "nowhere.pth"], "nowhere.pth"),
        (["decompose", "nowhere.pth", "--criterion", "energy:7"], "at most 1"),
        (["decompose", "nowhere.pth", "--scheme", "spacial"], "did you mean spatial"),
        (["decompose", "nowhere.pth", "--input-shape", "3,32"], "must look like 1x3x224x224"),
        (["decompose", "nowhere.pth", "--verify-seconds", "-1"], "must be a number of seconds"),
        (["decompose", "nowhere.pth", "--plan", "no.json"], "can't read the plan no.json"),
        (["decompose", "nowhere.pth", "--inputs", "no.npy"], "there is nothing to read at no.npy"),
        (["decompose", "nowhere.pth", "-o", "/proc/none/out"], "can't write"),
        (["decompose", "nowhere.pth", "-o", "."], "holds files that are no bundle"),
        (["decompose", "nowhere.pth", "-o", "file"], "not a directory"),
        (["export", "nowhere.pth"], "nowhere.pth"),
        (["inspect", "nowhere.pth"], "nowhere.pth"),
        (["flops", "nowhere.onnx"], "nowhere.onnx"),
        (["flops", "file", "--input-shape", "3,4"], "must look like 1x3x224x224"),
        (["verify", "nowhere", "also.onnx"], "nowhere"),
        (["verify", "."], "not a bundle"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"something")
    result = run(*arguments)
    assert result.code == 2
    assert says in result.error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["decompose", "export"])
def test_a_bundle_in_the_place_names_the_option_that_replaces_it(
    run: Run, tmp_path: Path, command: str
) -> None:
    (tmp_path / bundle.MANIFEST).write_text("{}")
    result = run(command, "nowhere.pth", "-o", tmp_path)
    assert result.code == 2
    assert result.error.endswith(
        "exists: choose another place, or have it replaced (--out, --force)"
    )


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "onnx", "directory"])
@pytest.mark.parametrize("command", ["decompose", "export", "inspect", "flops"])
def test_broken_checkpoints(
    run: Run, checkpoint: Path, tmp_path: Path, damage: str, command: str
) -> None:
    path = tmp_path / "broken.pth"
    content = checkpoint.read_bytes()
    if damage == "directory":
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[: len(content) // 2],
                "flipped": content[:2] + bytes([content[2] ^ 255]) + content[3:],
                "onnx": b"\x08\x0a\x12\x07pytorch" + content[:100],
            }[damage]
        )
    result = run(command, path, *(["-o", tmp_path / "o"] if command[-1] != "s" else []))
    if command == "inspect":
        result = run(command, path)
    assert result.code == 2
    assert "broken.pth" in result.error
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["", "decompose", "inspect", "export", "verify", "flops"])
def test_help(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.code == 0
    assert "Usage: trpexport" in result.out


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    code = (
        "import importlib, sys; importlib.import_module('trpexport.cli').run(['--help']); "
        "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)))"
    )
    # Against the library that it is made with, in turns: the machine may be slow just now.
    own, library = [], []
    for _ in range(5):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        between = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import typer"], check=True)
        own.append(between - started)
        library.append(time.perf_counter() - between)
    assert done.stdout.endswith("[]\n")
    assert min(own) < 4 * min(library)


EXPORTING = {"onnx", "onnx_ir", "onnxscript", "onnxruntime", "sympy", "torch._dynamo"}
DRAWING = {"rich", "jinja2", "matplotlib", "scipy"}


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        (("decompose", "--calib", "npz:nothing.npz", "--target-macs", "0.5"), {"torch"}),
        (("inspect",), {"torch"}),
        (("bench",), set()),
        (("verify",), set()),
        (("eval", "--data", "npz:nothing.npz"), set()),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_begins_without_what_it_may_never_need(
    command: tuple[str, ...], needs: set[str]
) -> None:
    code = (
        "import importlib, sys; importlib.import_module('trpexport.cli').run(sys.argv[1:]); "
        f"print(*({EXPORTING | DRAWING | {'torch'}} & set(sys.modules)))"
    )
    name, *options = command
    done = subprocess.run(
        [sys.executable, "-c", code, name, "nothing.pth", *options],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "nothing." in done.stderr  # the data set or the network: neither is there
    assert set(done.stdout.split()) == needs


def test_version_and_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trpexport", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"trpexport \d+\.\d+\.\d+\n", done.stdout)
