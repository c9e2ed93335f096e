"""Reading without running code: pickles, wrappers, types of tensors."""

from __future__ import annotations

import argparse
import collections
import datetime
import hashlib
import os
import pathlib
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from trpexport.checkpoints import read_state_dict
from trpexport.errors import CheckpointError, UnsafeCheckpointError

Weights = dict[str, Tensor]
Saver = Callable[[object], Path]


def same(found: object, expected: Weights) -> bool:
    assert isinstance(found, dict)
    return list(found) == list(expected) and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def test_both_torch_formats(save: Saver, weights: Weights) -> None:
    path = save(weights)
    state = read_state_dict(path)
    assert same(state.tensors, weights)
    assert state.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (state.notes, state.module, state.metadata) == ((), None, {})


def test_safetensors_with_metadata(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "weights.pth"  # the name lies
    safetensors.torch.save_file(weights, path, {"trained_by": "someone"})
    state = read_state_dict(str(path))
    assert state.metadata == {"trained_by": "someone"}
    assert {name: t.tolist() for name, t in state.tensors.items()} == {
        name: t.tolist() for name, t in weights.items()
    }


def test_weights_saved_on_cuda_come_to_the_cpu(
    save: Saver, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        path = save(weights)
    assert b"cuda:0" in path.read_bytes()
    state = read_state_dict(path)
    assert same(state.tensors, weights)
    assert {tensor.device.type for tensor in state.tensors.values()} == {"cpu"}


class Runs:
    """Pickled as a call: loading it with full pickle makes the call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("kind", ["os.system", "eval"])
def test_code_in_a_pickle_runs_only_when_asked_for(
    save: Saver, weights: Weights, tmp_path: Path, kind: str
) -> None:
    marker = tmp_path / "marker"
    calls = {
        "os.system": Runs(os.system, f"touch {marker}"),
        "eval": Runs(eval, f"open({str(marker)!r}, 'w').close()"),
    }
    path = save({"state_dict": weights, "extra": calls[kind]})
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_state_dict(path)
    assert not marker.exists()
    assert ("posix.system" if kind == "os.system" else "eval") in str(caught.value)
    assert "torch.save(model.state_dict()" in str(caught.value)
    assert caught.value.parameters == ("unsafe_pickle",)
    assert same(read_state_dict(path, unsafe_pickle=True).tensors, weights)
    assert marker.exists()  # so the first half could have failed


def test_a_pickled_network_is_refused_by_name(save: Saver) -> None:
    path = save({"model": nn.Sequential(nn.Conv2d(3, 4, 1)), "epoch": 3})
    with pytest.raises(UnsafeCheckpointError, match=r"asks for torch\.nn\.modules\.container\.Seq"):
        read_state_dict(path)
    state = read_state_dict(path, unsafe_pickle=True)
    assert isinstance(state.module, nn.Sequential)
    assert list(state.tensors) == ["0.weight", "0.bias"]
    assert state.notes == ("took the weights under 'model'",)


def test_a_pickled_data_parallel_network_loses_its_wrapper(save: Saver) -> None:
    state = read_state_dict(save(nn.DataParallel(nn.Conv2d(3, 4, 1))), unsafe_pickle=True)
    assert isinstance(state.module, nn.Conv2d)
    assert list(state.tensors) == ["weight", "bias"]


def test_full_pickle_imports_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "nets_of_mine.py").write_text("from torch import nn\nclass Net(nn.Conv2d): pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        import nets_of_mine  # type: ignore[import-not-found]

        torch.save(nets_of_mine.Net(1, 2, 3), tmp_path / "net.pth")
    monkeypatch.delitem(sys.modules, "nets_of_mine")
    with pytest.raises(CheckpointError, match="needs the module nets_of_mine: run from the folder"):
        read_state_dict(tmp_path / "net.pth", unsafe_pickle=True)
    monkeypatch.chdir(folder)
    path_before = list(sys.path)
    state = read_state_dict(tmp_path / "net.pth", unsafe_pickle=True)
    assert type(state.module).__name__ == "Net"
    assert sys.path == path_before
    monkeypatch.delitem(sys.modules, "nets_of_mine")
    (folder / "nets_of_mine.py").write_text("Other = 1\n")
    with pytest.raises(CheckpointError, match=r"AttributeError: .*Net.*: make its classes import"):
        read_state_dict(tmp_path / "net.pth", unsafe_pickle=True)


def test_bookkeeping_beside_the_weights_does_no_harm(save: Saver, weights: Weights) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], momentum=0.9)
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    args = argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), kind=float, n=np.int64(3))
    path = save(
        {
            "epoch": 3,
            "args": args,
            "best_acc": np.float64(0.9),
            "best_acc1": torch.tensor(91.5),
            "history": np.arange(3),
            "names": np.array(["a", None], dtype=object),
            "dtype": np.dtype("f4"),
            "when": datetime.datetime(2024, 5, 17),
            "space": types.SimpleNamespace(a=1),
            "meters": collections.defaultdict(list, {"loss": [1.0, 0.5]}),
            "torch": torch.__version__,
            "optimizer": optimizer.state_dict(),
            "state_dict": weights,
        }
    )
    state = read_state_dict(path)
    assert same(state.tensors, weights)
    assert state.notes == ("took the weights under 'state_dict'",)


def test_scalars_of_older_numpy_do_no_harm(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "w.pth"
    content = {"best_acc": np.float64(0.9), "state_dict": weights}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    path.write_bytes(written.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert path.stat().st_size == len(written) - 1
    assert same(read_state_dict(path).tensors, weights)


def test_lightning_attributes_become_a_plain_dict(
    save: Saver, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pytorch_lightning.utilities.parsing"
    module = types.ModuleType(name)
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": name})  # type: ignore[attr-defined]
    for package in ("pytorch_lightning", "pytorch_lightning.utilities"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, name, module)
    path = save({"hyper_parameters": module.AttributeDict(lr=0.1), "state_dict": weights})
    monkeypatch.undo()
    assert same(read_state_dict(path).tensors, weights)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_pickle_protocol(
    tmp_path: Path, weights: Weights, is_zip: bool, protocol: int
) -> None:
    path = tmp_path / "w.pth"
    torch.save(weights, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    assert same(read_state_dict(path).tensors, weights)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t.to_sparse(), "is a sparse or nested tensor: save it dense"),
        (lambda t: t.to("meta"), r"was saved without its values \(meta device\)"),
        (lambda t: t[:0], "has no values"),
        (lambda t: t[:1, :1].expand(10**9, 8), "claims 8000000000 values, more than the file"),
    ],
)
def test_tensors_that_are_no_plain_weights(
    save: Saver, weights: Weights, spoil: Callable[[Tensor], Tensor], says: str
) -> None:
    weights["fc.weight"] = spoil(weights["fc.weight"])
    with pytest.raises(CheckpointError, match=f"fc.weight {says}"):
        read_state_dict(save(weights))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors(tmp_path: Path) -> None:
    path = tmp_path / "nested.pth"
    torch.save({"w": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, path)
    with pytest.raises(CheckpointError, match="w is a sparse or nested tensor"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_tensors(save: Saver, weights: Weights) -> None:
    weights["fc.weight"] = torch.quantize_per_tensor(weights["fc.weight"], 0.1, 0, torch.qint8)
    with pytest.raises(
        CheckpointError, match=r"fc\.weight is quantized: give the float checkpoint"
    ):
        read_state_dict(save(weights))


def test_leftover_bytes_in_a_legacy_file_are_refused(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "w.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + b"\x00" * 12)
    with pytest.raises(CheckpointError, match="12 bytes belong to no tensor"):
        read_state_dict(path)


def test_control_characters_from_a_file_never_reach_the_terminal(
    save: Saver, weights: Weights
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(save({"\x1b[2J\nfc.weight": weights["fc.weight"]}))
    assert str(caught.value).isprintable()
    notes = read_state_dict(save({**weights, "\x1b[2J\nepoch": 3})).notes
    assert notes == ("ignored entries that are no tensors: \\x1b[2J",)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, weights: Weights, keep: float) -> None:
    for number, options in enumerate(({}, {"_use_new_zipfile_serialization": False}, None)):
        path = tmp_path / f"{number}.pth"
        if options is None:
            safetensors.torch.save_file(weights, path)
        else:
            torch.save(weights, path, **options)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(CheckpointError, match=r"is empty|truncated or damaged"):
            read_state_dict(path)
