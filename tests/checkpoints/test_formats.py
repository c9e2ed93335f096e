"""What kind of file it is, by its content."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trpexport.checkpoints.formats import check_zip, recognise_format
from trpexport.checkpoints.reading import read_state_dict
from trpexport.errors import CheckpointError


def write(tmp_path: Path, content: bytes, name: str = "checkpoint.pth") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def safetensors_bytes(header_length: int) -> bytes:
    """A file of one float32 of value 1 with a header this long, by the format's description."""
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode().ljust(header_length)
    assert len(text) == header_length
    return header_length.to_bytes(8, "little") + text + b"\x00\x00\x80\x3f"


def test_torch_save_formats_are_told_apart(tmp_path: Path) -> None:
    for is_zip, expected in ((True, "zip"), (False, "legacy")):
        path = tmp_path / "x.safetensors"  # the name lies
        torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=is_zip)
        assert recognise_format(path) == expected
        assert read_state_dict(path).tensors["w"].tolist() == [1, 1]


# A safetensors file begins with its header's length: 0x0280 and 0x8b1f are what a pickle and gzip
# begin with, 0x1208 what an ONNX file does.
@pytest.mark.parametrize("length", [80, 0x0280, 0x8B1F, 0x1208])
def test_a_safetensors_length_is_not_taken_for_another_magic(tmp_path: Path, length: int) -> None:
    path = write(tmp_path, safetensors_bytes(length))
    assert recognise_format(path) == "safetensors"
    assert read_state_dict(path).tensors["w"].tolist() == [1]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xf2\x01"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: download"),
        (LFS, "Git LFS pointer, not the file itself: run git lfs pull"),
        (ONNX, "is an ONNX file: trpexport decompose, inspect, verify and flops take it"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        (b"\n<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
        (b'{"lr": 0.1}', "text file"),
        ("Gewichte für ResNet".encode(), "text file"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gzip: unpack it"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd: unpack it"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}", "pickle that torch.save did not write"),
        (bytes(4096), "filled with zeros"),
        (bytes(range(255, 100, -1)), "not a PyTorch or safetensors checkpoint"),
        (b"PK\x03\x04", "truncated or damaged"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(path))
    assert "\n" not in message


def test_a_real_onnx_file_is_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [info], [output])
    model = onnx.helper.make_model(graph, producer_name="test")
    with pytest.raises(CheckpointError, match="is an ONNX file"):
        recognise_format(write(tmp_path, model.SerializeToString()))


def test_missing_directory_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*gone\.pth: check the path"):
        recognise_format(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match="is a directory: give the checkpoint file inside"):
        recognise_format(tmp_path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        recognise_format(Path("/dev/null"))
    with pytest.raises(CheckpointError, match=r"can't read .*File name too long"):
        recognise_format(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, LFS)
    path.chmod(0)
    with pytest.raises(CheckpointError, match=r"can't read .*Permission denied"):
        recognise_format(path)


@pytest.mark.parametrize("unsafe", [False, True])
def test_tar(tmp_path: Path, unsafe: bool) -> None:
    path = tmp_path / "model.pth.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"), io.BytesIO())
    says = "can't be unpickled" if unsafe else "is a tar archive: unpack it first"
    with pytest.raises(CheckpointError, match=says):
        read_state_dict(path, unsafe_pickle=unsafe)


def repacked(path: Path, compression: int) -> Path:
    new = path.with_suffix(".zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", compression) as archive:
        for name in old.namelist():
            archive.writestr(name, old.read(name))
    return new


def test_other_zip_archives_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", w=np.ones(2))
    with pytest.raises(CheckpointError, match="NumPy archive"):
        check_zip(tmp_path / "arrays.npz")
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        archive.writestr("resnet20.pth", b"...")
    with pytest.raises(CheckpointError, match="without weights in it: unpack it first"):
        check_zip(tmp_path / "files.zip")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    traced = torch.jit.trace(  # type: ignore[no-untyped-call]
        torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)
    )
    traced.save(path)
    with pytest.raises(CheckpointError, match="is a TorchScript archive: save the state_dict"):
        read_state_dict(path)


def test_a_repacked_zip_is_read_when_stored_and_refused_when_compressed(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(5000)}, path)
    stored = repacked(path, zipfile.ZIP_STORED)
    assert read_state_dict(stored).tensors["w"].shape == (5000,)
    with pytest.raises(CheckpointError, match=r"was compressed after torch\.save wrote it"):
        read_state_dict(repacked(path, zipfile.ZIP_DEFLATED))


def test_a_flipped_bit_in_a_weight_of_a_zip_file_is_found(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = tmp_path / "w.pth"
    torch.save(weights, path)
    content = bytearray(path.read_bytes())
    place = content.index(weights["fc.weight"].numpy().tobytes())
    content[place] ^= 1  # the lowest bit of a mantissa: nothing else could notice it
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"/data/\d+ fails its checksum; download"):
        read_state_dict(path)


def test_a_zip_file_with_an_empty_pickle(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/version", b"3\n")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_state_dict(path)


def test_a_zip_file_without_checksums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_state_dict(path).tensors["w"].tolist() == [1, 1, 1]
