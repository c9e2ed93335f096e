"""How a network is exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from trpexport.artifact.variants import check_precisions
from trpexport.bundle import ORT
from trpexport.choose.base import CalibrationImages
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import TrpexportError
from trpexport.inputs import Inputs, images_of
from trpexport.networks.base import Network
from trpexport.networks.dynamic import Dynamic
from trpexport.networks.onnx_settings import DEFAULT_OPSET, OnnxSettings
from trpexport.onnxfile.targets import Target
from trpexport.quantization.settings import QuantizationSettings
from trpexport.quantization.wiring import INT8
from trpexport.runtime.releases import installed

FORMATS = ("onnx", ORT)


@dataclass(frozen=True)
class ExportSettings:
    """How a network is exported and how long it is verified.

    Attributes:
        opset: ONNX operator set to write.
        dynamic_batch: leave the batch size of the ONNX file open.
        dynamic: other dimensions to leave open: ``height``, ``width``, or ``NAME:AXIS=DIMENSION``.
        legacy_exporter: use the TorchScript-based exporter.
        keep_norms: leave batch norms apart from the kernels before them, for a file that is to be
            decomposed; the legacy exporter writes it, and nothing simplifies it.
        simplify: run onnxsim on the file; None leaves that to the network.
        baseline: write the original network into the bundle as well, to bench against.
        verify_seconds: how long whole networks are compared, all comparisons together.
        replace: replace a bundle that stands in the place.
        precisions: in which precisions besides float32 the network is written.
        max_error: largest error of any output over its variation: of a decomposed network against
            the original one, of a precision against float32; None for any.
        min_agreement: least share of inputs with the same top-1 that a decomposed network keeps of
            the original one; None for any.
        target_ort: the version of ONNX Runtime that has to read the files, as in 1.16; None for
            the one here.
        formats: ``"ort"`` for ONNX Runtime's own format besides, of every file.
        check_target: whether they are run in that version, which is installed for it.
        preprocessing: how images become input, which the bundle keeps; None for what the network's
            source says.
    """

    opset: int = DEFAULT_OPSET
    dynamic_batch: bool = False
    dynamic: Sequence[str] = ()
    legacy_exporter: bool = False
    simplify: bool | None = None
    baseline: bool = False
    verify_seconds: float = 20.0
    replace: bool = False
    keep_norms: bool = False
    precisions: Sequence[str] = ()
    max_error: float | None = None
    min_agreement: float | None = None
    target_ort: str | None = None
    check_target: bool = False
    formats: Sequence[str] = ()
    preprocessing: Preprocessing | None = None

    def check(self, *, has_images: bool, provider: str = "cpu") -> None:
        """Refuse what can't be written, before any work is done.

        Args:
            has_images: whether there are images to calibrate on.
            provider: who will run them.

        Raises:
            TrpexportError: a precision is unknown, needs images, or can't be run here; or the
                target is unknown, does not read the operator set, or can't be installed; or a
                format is unknown.
        """
        if unknown := {*self.formats} - {*FORMATS}:
            raise TrpexportError(
                f"unknown format {min(unknown)!r}: choose from {', '.join(FORMATS)}"
            )
        self.onnx()
        if self.check_target and self.target is not None:
            installed(self.target.version)
        settings = replace(self.quantization(), provider=provider)
        check_precisions(self.precisions, settings, has_images=has_images)

    def also_in(self, layers: Mapping[str, str]) -> ExportSettings:
        """Return settings that write what has layers in int8 in that as well.

        Args:
            layers: by layer, the precision that was chosen.
        """
        if INT8 not in layers.values():
            return self
        return replace(self, precisions=tuple(dict.fromkeys([INT8, *self.precisions])))

    def quantization(
        self,
        images: CalibrationImages | None = None,
        inputs: Inputs | None = None,
        layers: Mapping[str, str] = MappingProxyType({}),
    ) -> QuantizationSettings:
        """Return on what other precisions are calibrated, and how much they may lose.

        Args:
            images: what to calibrate on; None for nothing.
            inputs: the network's.
            layers: by layer, the precision that was chosen; what none is in int8 of says nothing.

        Raises:
            DataError: the images do not fit the network.
        """
        limits = QuantizationSettings(max_error=self.max_error)
        if images is None or inputs is None or not self.precisions:
            return limits
        _, others = images.held_out()
        return replace(
            limits,
            calibration=inputs.named(images.inputs, "calibration images"),
            held_out=inputs.named(others, "held-out images") if images_of(others) else {},
            layers=layers if INT8 in layers.values() else {},
        )

    def passes(self, network: Network) -> tuple[str, ...]:
        """Return the passes that make a network's file, in their order."""
        if self.simplify is None and not self.keep_norms:
            names = network.passes
        else:
            names = ("export", "simplify", "annotate") if self.simplify else ("export", "annotate")
        return names if self.target is None else (*names[:-1], "lower", names[-1])

    @property
    def is_mobile(self) -> bool:
        """Whether files are written in ONNX Runtime's own format as well."""
        return ORT in self.formats

    @property
    def target(self) -> Target | None:
        """The version of ONNX Runtime that has to read the files.

        Raises:
            TrpexportError: it is not known.
        """
        return None if self.target_ort is None else Target.of(self.target_ort)

    def onnx(
        self, dynamic: Dynamic | None = None, *, dynamic_batch: bool | None = None
    ) -> OnnxSettings:
        """Return how ONNX is written.

        Args:
            dynamic: by input, the axes to leave open.
            dynamic_batch: whether the batch is; None as was asked for.

        Raises:
            ModelError: the target does not read the operator set that was asked for.
        """
        opset, target = self.opset, self.target
        if target is not None:
            if opset > DEFAULT_OPSET:
                target.check_opset(opset)
            opset = min(opset, target.opset)
        return OnnxSettings(
            opset,
            self.dynamic_batch if dynamic_batch is None else dynamic_batch,
            self.legacy_exporter,
            dynamic or {},
            self.keep_norms,
            target,
        )
