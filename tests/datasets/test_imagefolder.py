"""Images in folders and tars."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.datasets.picturing import encoded, pixels, two_classes, write_folder, write_tar
from trpexport.datasets import Split, open_dataset
from trpexport.datasets.calibration import DatasetImages
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError

Pack = Callable[[dict[str, bytes]], Path]


@pytest.fixture(params=["folder", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Pack:
    kind: str = request.param

    def write(files: dict[str, bytes]) -> Path:
        if kind == "folder":
            return write_folder(tmp_path / "images", files)
        return write_tar(tmp_path / f"images.{kind}", files, f"w:{kind[4:]}")

    return write


def error(text: object) -> str:
    """Return the one line that opening, or else reading all of the data set, fails with."""
    with pytest.raises(DataError) as caught:
        dataset = open_dataset(f"imagefolder:{text}")
        for name in dataset.readers:
            dataset.split(name).arrays()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_real_images(shared: Path) -> None:
    dataset = open_dataset(f"imagefolder:{shared / 'data/cifar10-jpeg.tar.gz'}")
    assert dataset.classes[::9] == ("airplane", "truck")
    assert len(dataset.split("train")) == 50_000
    split = dataset.split("test")
    assert np.bincount(split.labels).tolist() == [1000] * 10
    images = split.arrays()
    assert images is not None
    assert images.shape == (10_000, 3, 32, 32)
    # The published mean of CIFAR-10, which lossy compression keeps.
    np.testing.assert_allclose(images.mean((0, 2, 3)) / 255, (0.494, 0.485, 0.450), atol=2e-3)


def test_train_and_test(pack: Pack) -> None:
    files = two_classes("train", "test")
    dataset = open_dataset(f"imagefolder:{pack(files)}")
    assert dataset.classes == ("cat", "dog")
    assert dataset.channels == 3
    assert dataset.preprocessing.size is None
    assert list(dataset.readers) == ["train", "test"]
    split = dataset.split("test")
    assert split.labels.tolist() == [0, 0, 1]
    assert split.labels.dtype == np.int64
    for index, seed in enumerate((3, 4, 5)):  # as two_classes numbers them
        np.testing.assert_array_equal(split.image(index), pixels(seed))
    images = split.arrays()
    assert images is not None
    np.testing.assert_array_equal(images[2], pixels(5).transpose(2, 0, 1))
    np.testing.assert_array_equal(split.image(2), pixels(5))  # now from memory
    assert split.arrays() is images is split.in_memory()


@pytest.mark.parametrize(
    ("levels", "splits"),
    [
        (("",), ["test"]),
        (("val",), ["test"]),
        (("train", "val"), ["train", "test"]),
        (("top/train", "top/test"), ["train", "test"]),
        (("./train", "./validation"), ["train", "test"]),
        (("train",), ["train"]),
        (("train/cat", "train/dog"), ["train"]),  # nested folders belong to their class
    ],
)
def test_levels(pack: Pack, levels: tuple[str, ...], splits: list[str]) -> None:
    dataset = open_dataset(f"imagefolder:{pack(two_classes(*levels))}")
    assert list(dataset.readers) == splits
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.split(splits[0])) == 3 * len(levels) // len(splits)


def test_val_stands_in_for_a_test_without_classes(pack: Pack) -> None:
    files = two_classes("train", "val") | {"test/0.png": encoded(pixels(0))}
    assert len(open_dataset(f"imagefolder:{pack(files)}").split("test")) == 3


def test_train_may_be_a_class(pack: Pack) -> None:
    files = {f"{name}/0.png": encoded(pixels(0)) for name in ("car", "plane", "train")}
    dataset = open_dataset(f"imagefolder:{pack(files)}")
    assert dataset.classes == ("car", "plane", "train")


def test_what_is_no_image_of_the_user_is_left_out(pack: Pack) -> None:
    files = two_classes("train", "test") | {
        "train/cat/._0.png": b"macOS",
        "train/.ipynb_checkpoints/0.png": b"hidden",
        "__MACOSX/train/cat/._0.png": b"macOS",
        "train/cat/Thumbs.db": b"Windows",
        "README.txt": b"words",
        "loose.png": encoded(pixels(9)),
        "../evil/0.png": b"outside",
    }
    dataset = open_dataset(f"imagefolder:{pack(files)}")
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.split("train")) == 3


def test_sizes_that_differ(pack: Pack) -> None:
    files = two_classes("test") | {"test/dog/1.PNG": encoded(pixels(7, 5, 4))}
    split = open_dataset(f"imagefolder:{pack(files)}").split("test")
    assert split.arrays() is None
    assert split.in_memory() is None
    assert split.image(3).shape == (5, 4, 3)


def test_large_sets_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = open_dataset(f"imagefolder:{write_folder(tmp_path, two_classes('test'))}").split("test")
    monkeypatch.setattr("trpexport.datasets.decoding._DECODED_LIMIT", 3 * 4 * 4 * 3 - 1)
    assert split.arrays() is None


@pytest.mark.parametrize("name", ["test/cat/1.png", "test/dog/0.png"])
def test_an_undecodable_image_is_named(pack: Pack, name: str) -> None:
    files = two_classes("test")
    for damage in (b"", b"<html>not found</html>", files[name][:-30]):
        path = pack(files | {name: damage})
        assert error(path).startswith(f"{path}/{name}" if path.is_dir() else f"{path}: {name}")
        assert "can't be decoded" in error(path)


def test_an_empty_class(pack: Pack, tmp_path: Path) -> None:
    files = two_classes("train", "test")
    del files["train/dog/0.png"]
    path = pack(files | {"train/dog/notes.txt": b"none yet"})
    assert "train/dog has no images: add some" in error(path)
    assert "has no images" in error(write_tar(tmp_path / "e", two_classes("") | {"ant/": b""}))


def test_classes_that_differ(pack: Pack) -> None:
    files = two_classes("train", "test") | {"test/eel/0.png": encoded(pixels(1))}
    assert "must have the same class folders, but eel is missing in train" in error(pack(files))


@pytest.mark.parametrize(
    "files",
    [{}, {"readme.txt": b""}, {"train/0.txt": b"", "test/0.txt": b""}],
)
def test_no_images_in_classes(pack: Pack, files: dict[str, bytes]) -> None:
    assert "has no images: name a folder" in error(pack(files))


def test_only_test(tmp_path: Path) -> None:
    dataset = open_dataset(f"imagefolder:{write_folder(tmp_path, two_classes(''))}")
    with pytest.raises(DataError, match="has no train images, only test"):
        dataset.split("train")


@given(st.data())
def test_a_cut_or_altered_tar(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tar")
    compressed = data.draw(st.booleans())
    whole = write_tar(folder / "a", two_classes("test"), "w:gz" if compressed else "w").read_bytes()
    if compressed:
        # The last 8 bytes are the checksum and the length.
        cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        with tarfile.open(folder / "a") as tar:
            end = sum(512 + -(-member.size // 512) * 512 for member in tar)
        cut = whole[: data.draw(st.integers(0, end))]
    (folder / "a").write_bytes(cut)
    assert "can't be read as a tar" in error(folder / "a")


@pytest.mark.parametrize("at", [-5, -1])
def test_a_wrong_checksum(tmp_path: Path, at: int) -> None:
    path = write_tar(tmp_path / "a.tar.gz", two_classes("test"), "w:gz")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert "can't be read as a tar" in error(path)


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", two_classes("test"))
    data = bytearray(path.read_bytes())
    data[data.index(b"test/dog/0.png")] ^= 1
    path.write_bytes(data)
    assert "(bad checksum)" in error(path)


def test_files_that_are_no_tar(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(gzip.compress(b"hello"))
    (tmp_path / "c").write_bytes(os.urandom(5000))
    for name in "abc":
        assert "is no folder and can't be read as a tar" in error(tmp_path / name)


def test_hard_links_are_followed_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        write_tar(path, two_classes("test"))
        with tarfile.open(path, "a") as tar:
            link = tarfile.TarInfo("test/dog/9.png")
            link.type, link.linkname = kind, "./test/cat/1.png"
            tar.addfile(link)
        if kind == tarfile.LNKTYPE:
            image = open_dataset(f"imagefolder:{path}").split("test").image(3)
            np.testing.assert_array_equal(image, pixels(1))
    assert "test/dog/9.png is a link or no plain file" in error(path)


def test_a_too_large_compressed_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trpexport.datasets.trees._COMPRESSED_LIMIT", 100)
    files = two_classes("test")
    assert "decompress it" in error(write_tar(tmp_path / "a", files, "w:gz"))
    assert (
        open_dataset(f"imagefolder:{write_tar(tmp_path / 'b', files)}").split("test").arrays()
        is not None
    )


def test_names_with_line_breaks(pack: Pack) -> None:
    assert "a b.png" in error(pack({"cat/a\nb.png": b""}))


def test_unreadable_places(tmp_path: Path) -> None:
    assert "write imagefolder:DIR" in error("")
    assert "No such file" in error(tmp_path / "nothing")
    path = write_folder(tmp_path, two_classes("test"))
    split = open_dataset(f"imagefolder:{path}").split("test")
    (path / "test/cat/0.png").unlink()
    with pytest.raises(DataError, match=r"can't read .*0\.png: No such file"):
        split.image(0)


def _sum(split: Split) -> int:
    return sum(int(split.image(index).sum()) for index in range(len(split)))


@pytest.mark.parametrize(("start", "mode"), [("fork", "w"), ("spawn", "w"), ("fork", "w:gz")])
def test_other_processes(tmp_path: Path, start: str, mode: str) -> None:
    path = write_tar(tmp_path / "a", two_classes("test"), mode)
    split = open_dataset(f"imagefolder:{path}").split("test")
    split.arrays()
    with multiprocessing.get_context(start).Pool(1) as pool:
        assert pool.apply(_sum, (split,)) == sum(int(pixels(i).sum()) for i in range(3))


def test_pickles_leave_out_what_was_decoded(pack: Pack) -> None:
    split = open_dataset(f"imagefolder:{pack(two_classes('test', size=50))}").split("test")
    before = len(pickle.dumps(split))
    split.arrays()
    copy = pickle.loads(pickle.dumps(split))
    assert len(pickle.dumps(split)) == before
    np.testing.assert_array_equal(copy.arrays(), split.arrays())


def test_a_compressed_tar_that_unpacks_to_far_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("test/cat/0.txt")  # what is passed over is unpacked as well
        member.size = 1 << 22
        tar.addfile(member, io.BytesIO(bytes(1 << 22)))
    monkeypatch.setattr("trpexport.datasets.trees.memory_allowance", lambda size: 10 * size)
    assert "decompress it" in error(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="it has no such files")
def test_a_pipe_in_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    path = write_folder(tmp_path, two_classes("test"))
    os.mkfifo(path / "test/cat/pipe.png")
    split = open_dataset(f"imagefolder:{path}").split("test")
    with pytest.raises(DataError, match="it is no plain file"):
        for index in range(len(split)):
            split.image(index)


@pytest.mark.parametrize("levels", [("",), ("train", "val")])
@pytest.mark.parametrize("as_tar", [False, True])
def test_images_without_classes_are_there_to_calibrate_on(
    tmp_path: Path, levels: tuple[str, ...], as_tar: bool
) -> None:
    files = {
        f"{level}/{i}.png".lstrip("/"): encoded(pixels(i, 4, 4)) for level in levels for i in (0, 1)
    }
    path = write_tar(tmp_path / "a.tar", files) if as_tar else write_folder(tmp_path / "a", files)
    found = open_dataset(f"imagefolder:{path}")
    name = "train" if "train" in levels else "test"
    assert found.classes == ()
    assert np.array_equal(found.images(name).image(1), pixels(1, 4, 4))
    assert found.images(name).labels.tolist() == [-1, -1]
    calibrated = DatasetImages(found, found.preprocessing, (1, 3, 4, 4), count=1)
    assert calibrated.inputs.shape == (1, 3, 4, 4)
    with pytest.raises(DataError, match="has no labels, which are needed here"):
        found.split(name)


def test_images_in_folders_beside_more_images_have_no_classes(tmp_path: Path) -> None:
    files = {f"{i}.png": encoded(pixels(i)) for i in range(3)} | {"old/a.png": encoded(pixels(3))}
    found = open_dataset(f"imagefolder:{write_folder(tmp_path / 'a', files)}")
    assert len(found.images("test")) == 4
    with pytest.raises(DataError, match="has no labels, which are needed here: arrange its images"):
        found.split("test")


@pytest.mark.parametrize(
    ("mode", "remark"),
    [
        ("RGBA", "transparency is dropped"),
        ("LA", "transparency is dropped"),
        ("CMYK", "CMYK becomes RGB"),
        ("I;16", "of 16 bits the upper 8 are kept"),
        ("L", None),
        ("RGB", None),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_done_to_images_is_said_once(
    tmp_path: Path, mode: str, remark: str | None, channels: int
) -> None:
    size = (4, 4)
    picture = Image.new(mode, size, 300 if mode == "I;16" else None)
    kind = "tiff" if mode == "CMYK" else "png"
    files = {f"{i}.{kind}": encoded(picture, kind) for i in range(3)}
    dataset = open_dataset(str(write_folder(tmp_path / "a", files)))
    how = Preprocessing((0.0,) * channels, (1.0,) * channels)
    images = DatasetImages(dataset, how, (1, channels, *size))
    assert images.inputs.shape == images.unseen().shape == (3, channels, *size)
    said = [note for note in images.notes if "of the images" in note and "become grey" not in note]
    assert said == ([] if remark is None else [f"of the images: {remark}"])
    assert sum("become grey" in note for note in images.notes) == (channels == 1)
