"""What kind of file a checkpoint is, judged by its content and never by its name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from trpexport.checkpoints.wording import one_line
from trpexport.errors import CheckpointError
from trpexport.onnxfile.recognition import begins_onnx

Format = Literal["zip", "legacy", "safetensors", "tar"]

_HEAD_BYTES = 1024
# The integer 0x1950a86a20f9469cfc6c as pickle writes it: how torch.save began before version 1.6.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes; the limit of the format's own reader
_UNPACK = "unpack it first and give the checkpoint inside"
_ORIGIN = "give the PyTorch checkpoint that it was made from"
_AGAIN = "download or save it again"

# (offset in the file, bytes found there, what to say)
_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the file itself: run git lfs pull"),
    (0, b"\x1f\x8b", f"is compressed with gzip: {_UNPACK}"),
    (0, b"BZh", f"is compressed with bzip2: {_UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"is compressed with xz: {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"is compressed with zstd: {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"is a 7z archive: {_UNPACK}"),
    (0, b"Rar!", f"is a RAR archive: {_UNPACK}"),
    (0, b"\x89HDF\r\n", f"is an HDF5 file, as Keras writes: {_ORIGIN}"),
    (0, b"\x93NUMPY", f"is a NumPy array: {_ORIGIN}"),
    (4, b"TFL3", f"is a TensorFlow Lite model: {_ORIGIN}"),
    (4, b"ORTM", f"is an ONNX Runtime model: {_ORIGIN}"),
)


def recognise_format(path: Path) -> Format:
    """Return the format of a checkpoint file.

    Raises:
        CheckpointError: the file is missing, unreadable, empty, or of another kind, which is named.
    """
    head, size = _read_head(path)
    if size == 0:
        raise CheckpointError(f"{path} is empty: {_AGAIN}")
    # First, because the length that a safetensors file starts with may look like any other magic.
    if _is_safetensors(head):
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80") and _LEGACY_MAGIC in head[:32]:
        return "legacy"
    if head[257:262] == b"ustar":
        return "tar"
    raise CheckpointError(f"{path} {_complaint(head)}")


# The bit of a zip record's external attributes that MS-DOS has for directories.
_DIRECTORY = 0x10


def check_zip(path: Path) -> None:
    """Refuse a zip file that is damaged or is not a checkpoint of ``torch.save``.

    The checksums that every record carries are compared, so that no damaged weight gets through.
    A file saved with ``set_crc32_options(False)`` has none.

    Raises:
        CheckpointError: a checksum differs, the structure is broken, or it is another archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_records(path, archive)
            has_checksums = any(record.CRC for record in archive.infolist())
            damaged = archive.testzip() if has_checksums else None
    except CheckpointError:
        raise
    except Exception as error:  # a broken directory makes zipfile fail in any way
        raise CheckpointError(
            f"{path} is truncated or damaged ({one_line(error)}): {_AGAIN}"
        ) from error
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: {one_line(damaged)} fails its checksum; {_AGAIN}"
        )


def _read_head(path: Path) -> tuple[bytes, int]:
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a directory: give the checkpoint file inside it")
        if not path.exists():
            raise CheckpointError(f"there is no file {path}: check the path")
        if not path.is_file():
            raise CheckpointError(f"{path} is not a regular file: save it to disk first")
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES), path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror or error}") from error


def _is_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and length <= _SAFETENSORS_HEADER_LIMIT


def _complaint(head: bytes) -> str:
    """Say what a file that is no checkpoint is, and what to do about it."""
    for offset, magic, complaint in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return complaint
    if begins_onnx(head):
        return "is an ONNX file: trpexport decompose, inspect, verify and flops take it as it is"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "is a pickle that torch.save did not write: save the state_dict with torch.save"
    if not any(head):
        return f"is filled with zeros: the copy broke off; {_AGAIN}"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not the file: open the link in a browser and download it again"
    if _is_text(head):
        return "is a text file, not a checkpoint: give the .pth or .safetensors file"
    return f"is not a PyTorch or safetensors checkpoint, or its first bytes are damaged: {_AGAIN}"


def _is_text(head: bytes) -> bool:
    # The head may end inside a character, so the last three bytes don't count against it.
    text = head.decode("utf-8", errors="ignore")
    return len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c.isspace() for c in text)


def _check_records(path: Path, archive: zipfile.ZipFile) -> None:
    records = archive.infolist()
    names = {record.filename.rpartition("/")[2] for record in records}
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path} is a TorchScript archive: save the state_dict of the original network with "
            "torch.save instead, or load it with torch.jit.load and save that one's state_dict"
        )
    if "data.pkl" not in names:
        if any(name.endswith(".npy") for name in names):
            raise CheckpointError(f"{path} is a NumPy archive: {_ORIGIN}")
        raise CheckpointError(f"{path} is a zip archive without weights in it: {_UNPACK}")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError(
            f"{path} was compressed after torch.save wrote it: {_AGAIN} uncompressed"
        )
    if len({record.filename for record in records}) < len(records):
        raise CheckpointError(f"{path} is damaged: two records have one name; {_AGAIN}")
    # PyTorch's reader takes such a record for a directory and leaves its weights as memory was.
    if any(record.external_attr & _DIRECTORY for record in records if record.file_size):
        raise CheckpointError(f"{path} is damaged: a record is marked as a directory; {_AGAIN}")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise CheckpointError(f"{path} is damaged: its records are larger than the file; {_AGAIN}")
