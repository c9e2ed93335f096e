"""Networks of the precision benchmark: dense and at two ratios of MACs, each with images."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import trpexport as tx
from benchmarks.networks import AlignedFraction, plan_at, random_network, unweighted
from trpexport.choose.spectra import keep_all
from trpexport.datasets.calibration import spread
from trpexport.networks.torch.network import TorchNetwork

MULTIPLE = 16  # of ranks: the channel block of kernels for AVX-512
SHARES = (0.65, 0.5)  # of the MACs
_OF_A_SMALL_ONE = (0.85, 0.75)  # SqueezeNet has little to give: 42 % of top-1 are left at 0.65
VERSIONS = ("dense", "low rank A", "low rank B")
_EXPORT = tx.ExportSettings(dynamic_batch=True, verify_seconds=0)
_ROOT = Path(__file__).resolve().parent.parent
_CIFAR = tx.Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """Where things lie that are not this repository's to distribute.

    Attributes:
        shared: checkpoints, networks and images.
        networks: folder of ``craft.onnx``.
    """

    shared: Path
    networks: Path


@dataclass(frozen=True)
class Prepared:
    """A network's images.

    Attributes:
        calibration: inputs to fit ranges and factors to, without labels.
        test: inputs that nothing was fitted to.
        labels: of those; None where an output error is what counts.
    """

    calibration: Images
    test: Images
    labels: NDArray[np.int64] | None


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        name: what it is called in tables.
        weights: what its weights are.
        images: reads its images.
        write: writes the file of one version.
    """

    name: str
    weights: str
    images: Callable[[Material], Prepared]
    write: Callable[[Material, Images, str, Path], None]


def cifar(location: str, calibrated: int) -> Callable[[Material], Prepared]:
    """Return what reads a data set of small images, so many of them to calibrate on."""

    def read(material: Material) -> Prepared:
        data = tx.open_dataset(location.format(data=material.shared / "data"))
        train, test = data.split("train"), data.split("test")
        chosen = spread(len(train), calibrated, 0)
        return Prepared(
            _CIFAR.normalise(_CIFAR.prepare_split(train, chosen)),
            _CIFAR.normalise(_CIFAR.prepare_split(test, np.arange(len(test)))),
            test.labels,
        )

    return read


def photographs(size: int, count: int, tested: int, *, caffe: bool) -> Callable[..., Prepared]:
    """Return what reads photographs.

    Args:
        size: that they are resized to.
        count: to calibrate on.
        tested: to test on.
        caffe: whether they are prepared as Caffe does, and have labels that count.
    """

    def read(material: Material) -> Prepared:
        with tarfile.open(material.shared / "data" / "natural-1000.tar") as archive:
            rows = list(csv.DictReader(io.TextIOWrapper(_file(archive, "labels.csv"))))
            chosen = {
                split: [row for row in rows if row["split"] == split][:most]
                for split, most in (("calib", count), ("test", tested))
            }
            pixels = {
                split: np.stack([_resized(_file(archive, row["file"]), size) for row in found])
                for split, found in chosen.items()
            }
        prepared = {split: _normalised(found, caffe) for split, found in pixels.items()}
        labels = np.array([int(row["label"]) for row in chosen["test"]], np.int64)
        return Prepared(prepared["calib"], prepared["test"], labels if caffe else None)

    return read


def _file(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    found = archive.extractfile(f"natural-1000/{name}")
    assert found is not None
    return io.BytesIO(found.read())


def _resized(file: io.BytesIO, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(file).convert("RGB").resize((size, size)))


def _normalised(pixels: NDArray[np.uint8], caffe: bool) -> Images:
    if caffe:  # pixels from 0 to 255, less the mean
        values = pixels.astype(np.float32) - np.array([123, 117, 104], np.float32)
    else:
        mean, std = (np.array(one, np.float32) for one in (_CIFAR.mean, _CIFAR.std))
        values = ((pixels / 255 - mean) / std).astype(np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _write_trp(material: Material, _: Images, version: str, out: Path) -> None:
    """Write the repository's TRP network, at the threshold it was trained for or ranks rounded."""
    path = _ROOT / "models_zoo" / "checkpoints" / "resnet20-trp-spatial-164-epochs.safetensors"
    if version == "dense":
        tx.export(path, out, dynamic_batch=True, verify_seconds=0)
        return
    small = tx.decompose(path, tx.ByCriterion(criterion="value:0.05", rank_multiple=1))
    if version == "low rank A":
        layers = [
            layer
            if layer.rank is None or layer.full_rank is None
            else replace(layer, rank=min(-(-layer.rank // MULTIPLE) * MULTIPLE, layer.full_rank))
            for layer in small.plan.layers
        ]
        small = tx.decompose(path, tx.ByPlan(replace(small.plan, layers=tuple(layers))))
    small.export(out, settings=_EXPORT)


def _write_calibrated(
    path: str,
    factory: str | None,
    *,
    shares: tuple[float, ...] = SHARES,
    fitted: int | None = None,
) -> Callable[..., None]:
    def write(material: Material, images: Images, version: str, out: Path) -> None:
        file = path.format(shared=material.shared, networks=material.networks)
        if version != "dense":
            share = shares[VERSIONS.index(version) - 1]
            chooser = tx.ByBudget(
                macs=share, scheme="spatial", rank_multiple=MULTIPLE, cache=out.parent / "tables"
            )
            small = tx.decompose(file, chooser, images=images[:fitted], factory=factory)
            small.export(out, settings=_EXPORT)
        elif file.endswith(".onnx"):
            out.mkdir(parents=True)
            (out / "model.onnx").write_bytes(Path(file).read_bytes())
        else:
            shape = (1, *images.shape[1:])
            tx.export(
                file, out, factory=factory, input_shape=shape, dynamic_batch=True, verify_seconds=0
            )

    return write


def _write_resnet18(material: Material, images: Images, version: str, out: Path) -> None:
    model = random_network("resnet18", 1000)
    shape = (1, *images.shape[1:])
    if version == "dense":
        from trpexport.artifact.build import export_bundle

        network = TorchNetwork.open(model, shape)
        export_bundle(network, keep_all(network), out, settings=_EXPORT)
        return
    analysis = unweighted(TorchNetwork.open(model, shape), "spatial")
    ratio = 1 / SHARES[VERSIONS.index(version) - 1]
    plan = plan_at(analysis, ratio, AlignedFraction)
    tx.decompose(model, tx.ByPlan(plan)).export(out, settings=_EXPORT)


CASES = (
    Case(
        "TRP ResNet-20",
        "trained here, on JPEG",
        cifar("imagefolder:{data}/cifar10-jpeg.tar.gz", 512),
        _write_trp,
    ),
    Case(
        "ResNet-20",
        "public (resnet20-12fca82f)",
        cifar("cifar10:{data}/cifar10-lossless", 512),
        _write_calibrated("{shared}/checkpoints/resnet20-12fca82f.th", None),
    ),
    Case(
        "SqueezeNet at 227",
        "ImageNet",
        photographs(227, 256, 510, caffe=True),
        _write_calibrated(
            "{shared}/models/squeezenet.pth", "squeezenet:squeezenet", shares=_OF_A_SMALL_ONE
        ),
    ),
    Case(
        "CRAFT at 224",
        "craft_mlt_25k",
        photographs(224, 128, 64, caffe=False),
        _write_calibrated("{networks}/craft.onnx", None, fitted=8),
    ),
    Case(
        "ResNet-18 at 224",
        "random",
        photographs(224, 64, 64, caffe=False),
        _write_resnet18,
    ),
)
