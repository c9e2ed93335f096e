"""What can be told of an ONNX file before it is parsed: a wrong file is named for what it is."""

from __future__ import annotations

from pathlib import Path

from trpexport.errors import ModelError

# A safetensors header is at most 100 MB long: github.com/huggingface/safetensors, "Format".
_SAFETENSORS_HEADER_LIMIT = 100_000_000
_HEAD_LENGTH = 9  # its length in 8 bytes, then its opening brace


def check_onnx_file(path: Path) -> None:
    """Refuse a path that can't hold an ONNX network.

    Raises:
        ModelError: there is no file, it can't be read, it is empty or no plain file, or it is a
            checkpoint.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a directory: name the ONNX file in it")
        if path.exists() and not path.is_file():  # reading it might never end
            raise ModelError(f"{path} is no plain file: write the ONNX file to disk, and name that")
        head = _read_head(path)
    except FileNotFoundError:
        raise ModelError(
            f"there is no file {path}: check the path, or make one with trpexport export"
        ) from None
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror or error}") from None
    check_onnx_head(head, str(path))


def is_checkpoint(path: Path) -> bool:
    """Whether a file holds weights, not a network, by its first bytes; no for an unreadable one."""
    try:
        return path.is_file() and _begins_checkpoint(_read_head(path))
    except OSError:
        return False


def is_onnx(path: Path) -> bool:
    """Whether a file is to be read as ONNX: by its first bytes, or by its name.

    What begins like a checkpoint is none, whatever its name.
    """
    try:
        head = _read_head(path) if path.is_file() else b""
    except OSError:
        head = b""
    if head and _begins_checkpoint(head):
        return False
    return path.suffix.lower() == ".onnx" or begins_onnx(head)


def is_ort(path: Path) -> bool:
    """Whether a file is in ONNX Runtime's own format, by its first bytes; no for an unreadable one.

    It is a FlatBuffer: the place of its root, then its identifier.
    """
    try:
        return path.is_file() and _read_head(path)[4:8] == b"ORTM"
    except OSError:
        return False


def begins_onnx(head: bytes) -> bool:
    """Whether this starts like a ``ModelProto``: a small ``ir_version``, then another field."""
    field_tags = b"\x12\x1a\x22\x28\x32\x3a\x42"
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in field_tags


def check_onnx_head(head: bytes, label: str) -> None:
    """Refuse content that is no ONNX network by its first bytes.

    Args:
        head: the content, or no less than its first 9 bytes.
        label: what the content is called in a message.

    Raises:
        ModelError: it is empty, or it is a checkpoint.
    """
    if not head:
        raise ModelError(f"{label} is empty: copy it again, or make one with trpexport export")
    if _begins_checkpoint(head):
        raise ModelError(
            f"{label} is a checkpoint, not an ONNX file; make one with trpexport export"
        )


def not_onnx(label: str) -> ModelError:
    """Return the error for content that can't be parsed as an ONNX network."""
    return ModelError(
        f"{label} is not an ONNX file, or was cut short: copy it again, or make one with "
        "trpexport export"
    )


def only_runs(label: str) -> ModelError:
    """Return the error for a file in ONNX Runtime's own format, where its graph is needed."""
    return ModelError(
        f"{label} is in ONNX Runtime's own format, which can be run and nothing else: name the "
        ".onnx file that it was made of"
    )


def no_opset(label: str) -> ModelError:
    """Return the error for a network that does not say what its operators mean."""
    return ModelError(
        f"{label} does not say which operator set it uses, as files of 2017 did not: export the "
        "network again"
    )


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_LENGTH)


def _begins_checkpoint(head: bytes) -> bool:
    """Whether this begins like a torch.save file (zip or pickle) or a safetensors file."""
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return True
    header_length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and header_length <= _SAFETENSORS_HEADER_LIMIT
