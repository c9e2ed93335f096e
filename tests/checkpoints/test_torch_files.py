"""Files of ``torch.save``, forged: every value comes from the file, or the file is refused."""

from __future__ import annotations

import collections
import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trpexport.checkpoints import read_state_dict
from trpexport.checkpoints.torch_files import read_torch_file
from trpexport.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
STORED = torch.arange(12.0)


class Storage:
    """Pickled as a persistent id of this storage."""

    def __init__(self, *pid: Any) -> None:
        self.pid = pid


class Stored:
    """Pickled as a tensor that is a view of a storage."""

    def __init__(self, storage: Storage, offset: Any, size: Any, stride: Any) -> None:
        self.arguments: tuple[Any, ...] = (
            storage,
            offset,
            size,
            stride,
            False,
            collections.OrderedDict(),
        )

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


def pickled(root: object) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, item: Any) -> Any:
            return item.pid if isinstance(item, Storage) else None

    file = io.BytesIO()
    Pickler(file, 2).dump(root)
    return file.getvalue()


def legacy(root: object, stored: list[tuple[str, int, bytes]], after: bytes = b"") -> bytes:
    """A legacy file: the data, then (key, number of values said, bytes) of each storage."""
    parts = [MAGIC, 1001, {"little_endian": True}, root, [key for key, _, _ in stored]]
    storages = (struct.pack("<q", values) + content for _, values, content in stored)
    return b"".join(map(pickled, parts)) + b"".join(storages) + after


def zipped(root: object, stored: dict[str, bytes], **records: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(root))
        for key, content in stored.items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def storage(values: int = 12, key: Any = "0", *view: Any) -> Storage:
    return Storage("storage", torch.FloatStorage, key, "cpu", values, *(view or (None,)))


CONTENT = STORED.numpy().tobytes()


def read(tmp_path: Path, content: bytes) -> dict[str, Tensor]:
    path = tmp_path / "forged.pth"
    path.write_bytes(content)
    return dict(read_state_dict(path).tensors)


WHOLE = Stored(storage(), 0, (3, 4), (4, 1))


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (WHOLE, STORED.reshape(3, 4)),
        (Stored(storage(), 1, (3, 2), (1, 4)), torch.tensor([[1.0, 5], [2, 6], [3, 7]])),
        (Stored(storage(12, "0", ("1", 4, 6)), 1, (5,), (1,)), STORED[5:10]),
    ],
)
def test_values_are_those_of_the_file(tmp_path: Path, tensor: Stored, expected: Tensor) -> None:
    assert torch.equal(read(tmp_path, legacy({"w": tensor}, [("0", 12, CONTENT)]))["w"], expected)
    if tensor.arguments[0].pid[5] is None:  # views of storages are of the older format alone
        assert torch.equal(read(tmp_path, zipped({"w": tensor}, {"0": CONTENT}))["w"], expected)


@pytest.mark.parametrize(
    "stored",
    [
        [],
        [("1", 12, CONTENT)],
        [("0", 12, CONTENT), ("0", 12, CONTENT)],
        [("0", 12, CONTENT), ("1", 12, CONTENT)],
        [("0", 11, CONTENT[:-4])],
        [("0", 12, CONTENT[:-4])],
        [("0", -12, CONTENT)],
        [("0", 13, CONTENT + b"1234")],
    ],
    ids=["none", "another", "twice", "one more", "fewer", "short", "negative", "more"],
)
def test_legacy_storages_that_are_not_whole(
    tmp_path: Path, stored: list[tuple[str, int, bytes]]
) -> None:
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(tmp_path, legacy({"w": WHOLE}, stored))


@pytest.mark.parametrize(
    "tensor",
    [
        Stored(storage(), 1, (3, 4), (4, 1)),
        Stored(storage(), 0, (3, 5), (4, 1)),
        Stored(storage(), 0, (3, 4), (4, 2)),
        Stored(storage(), -1, (3, 4), (4, 1)),
        Stored(storage(), 0, (3, 4), (-4, 1)),
        Stored(storage(), 0, (3, 4), (4,)),
        Stored(storage(), 2**62, (2**62, 4), (4, 1)),
        Stored(storage(), 0, (3.0, 4), (4, 1)),
        Stored(storage(10**12), 0, (3, 4), (4, 1)),
        Stored(storage(12, 0), 0, (3, 4), (4, 1)),
        Stored(storage(12, "0", ("1", 4, 9)), 0, (9,), (1,)),
        Stored(storage(12, "0", ("1", -4, 9)), 0, (9,), (1,)),
        Stored(Storage("module", torch.FloatStorage, "0", "cpu", 12), 0, (3, 4), (4, 1)),
        Stored(Storage("storage", torch.Tensor, "0", "cpu", 12), 0, (3, 4), (4, 1)),
    ],
)
def test_tensors_beyond_their_storage(tmp_path: Path, tensor: Stored) -> None:
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(tmp_path, legacy({"w": tensor}, [("0", 12, CONTENT)]))


@pytest.mark.parametrize(
    "content",
    [
        zipped({"w": WHOLE}, {}),
        zipped({"w": WHOLE}, {"0": CONTENT[:-4]}),
        zipped({"w": WHOLE}, {"0": CONTENT + b"1234"}),
        zipped({"w": WHOLE}, {"0": CONTENT}, byteorder=b"big"),
        zipped({"w": Stored(storage(), 1, (3, 4), (4, 1))}, {"0": CONTENT}),
    ],
    ids=["none", "short", "long", "big-endian", "beyond"],
)
def test_zip_storages_that_are_not_whole(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(tmp_path, content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name(tmp_path: Path) -> None:
    file = io.BytesIO(zipped({"w": WHOLE}, {"0": CONTENT}))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data/0", bytes(48))
    with pytest.raises(CheckpointError, match="two records have one name"):
        read(tmp_path, file.getvalue())


def laughs(depth: int = 40) -> Any:
    """A list of two references to a list of two references to ..., 2^40 in all."""
    item: Any = ["ha"]
    for _ in range(depth):
        item = [item, item]
    return item


def nested(depth: int) -> Any:
    item: Any = "end"
    for _ in range(depth):
        item = {"in": item}
    return item


@pytest.mark.parametrize(
    "beside", [laughs(), {1: laughs(), (1, 2): 3}, nested(100), 10**5000], ids=str.__class__
)
def test_odd_things_beside_the_weights_do_no_harm(
    tmp_path: Path, beside: object, save: Callable[[object], Path]
) -> None:
    state = read_state_dict(save({"w": STORED, "beside": beside, 7: beside}))
    assert torch.equal(state.tensors["w"], STORED)
    assert state.notes == ("ignored entries that are no tensors: beside, a int",)


def test_attributes_of_tensors_are_dropped(save: Callable[[object], Path]) -> None:
    """PyTorch would set them, and find a number where it looks for a method."""
    weight, other = nn.Parameter(STORED.clone()), STORED.clone()
    weight.numel = other.numel = 5  # type: ignore[method-assign,assignment]
    tensors = read_state_dict(save({"w": weight, "v": other})).tensors
    assert torch.equal(tensors["w"], STORED) and torch.equal(tensors["v"], STORED)
    assert tensors["w"].numel() == 12


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint64, torch.float8_e4m3fn])
def test_types_without_a_storage_of_their_own(
    save: Callable[[object], Path], dtype: torch.dtype
) -> None:
    tensor = STORED.to(dtype)
    found = read_state_dict(save({"w": tensor})).tensors["w"]
    assert found.dtype == dtype and torch.equal(found.float(), STORED)


def test_layers_that_share_weights_share_them(save: Callable[[object], Path]) -> None:
    tensors = read_state_dict(save({"a": STORED, "b": STORED, "c": STORED[6:]})).tensors
    assert tensors["a"].data_ptr() == tensors["b"].data_ptr()
    assert torch.equal(tensors["c"], STORED[6:])


def test_values_shared_without_end(tmp_path: Path) -> None:
    root = {f"layer{number}.weight": WHOLE for number in range(100)}
    path = tmp_path / "shared.pth"
    path.write_bytes(zipped(root, {"0": CONTENT}))
    assert len(read_state_dict(path).tensors) == 100
    large = torch.zeros(2**20)  # 4 GB in all
    torch.save({f"layer{number}.weight": large for number in range(1000)}, path)
    with pytest.raises(CheckpointError, match="share their values"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["a" * 600, "a." * 60 + "weight"])
def test_names_that_no_network_has(save: Callable[[object], Path], name: str) -> None:
    with pytest.raises(CheckpointError, match="as no network has") as caught:
        read_state_dict(save({name: STORED}))
    assert len(str(caught.value)) < 500


def test_more_dimensions_than_torch_can_compute_with(save: Callable[[object], Path]) -> None:
    with pytest.raises(CheckpointError, match="has 70 dimensions"):
        read_state_dict(save({"w": STORED.reshape(*[1] * 69, 12)}))


@pytest.mark.parametrize("is_zip", [True, False])
def test_flipped_bits_never_let_in_what_the_file_does_not_hold(
    tmp_path: Path, is_zip: bool
) -> None:
    """All values of the file are 1: any other in a tensor would be memory as it was.

    The memory that is handed out next held 7s.
    """
    file = io.BytesIO()
    torch.save(
        {f"layer{n}": torch.ones(5, 8) for n in range(6)},
        file,
        _use_new_zipfile_serialization=is_zip,
    )
    path, read_at_all = tmp_path / "flipped.pth", 0
    draw = random.Random(0)
    for _ in range(300):
        content = bytearray(file.getvalue())
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        held = [torch.full((40,), 7.25) for _ in range(8)]
        del held
        try:
            root = read_torch_file(path, "zip" if is_zip else "legacy")
        except CheckpointError:
            continue
        read_at_all += 1
        assert isinstance(root, dict)
        for value in root.values():
            assert not isinstance(value, Tensor) or not (value == 7.25).any()
    assert read_at_all  # a flip in a value, or in a name
