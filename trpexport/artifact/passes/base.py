"""What a pass is: one step on the way to the file of a bundle, with a claim that is checked."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

from trpexport.artifact.drift import remedy
from trpexport.artifact.reference import Comparisons, OnnxFile, ReferenceRuns
from trpexport.compare import FLOAT32, Comparison, Tolerance
from trpexport.errors import ModelError, NothingToDoError, TrpexportError, VerificationError
from trpexport.foreign import first_line
from trpexport.networks.base import Network
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.quantization.settings import QuantizationSettings
from trpexport.stages import Stages


@dataclass(frozen=True)
class Equivalent:
    """The network computes what it did before, up to rounding.

    Attributes:
        tolerance: how far rounding may carry an output.
    """

    tolerance: Tolerance = FLOAT32

    def broken_by(self, outputs: Comparisons) -> str | None:
        """Return the first output that differs by more, or None."""
        wrong = (name for name, found in outputs.items() if not found.is_equivalent(self.tolerance))
        return next(wrong, None)

    def to_json(self) -> dict[str, Any]:
        """Return the claim as JSON-ready data."""
        return {"kind": "equivalent", "tolerance": asdict(self.tolerance)}


@dataclass(frozen=True)
class Approximate:
    """The network computes something near: the difference is reported, never passed.

    Attributes:
        limit: largest error of any output that is asked for, as :func:`error_of`; None for any.
    """

    limit: float | None = None

    def broken_by(self, outputs: Comparisons) -> str | None:
        """Return the first output that is further off than was asked for, or None."""
        if self.limit is None:
            return None
        limit = self.limit
        wrong = (name for name, found in outputs.items() if not error_of(found) <= limit)
        return next(wrong, None)

    def to_json(self) -> dict[str, Any]:
        """Return the claim as JSON-ready data."""
        limit = {} if self.limit is None else {"limit": self.limit}
        return {"kind": "approximate", "tolerance": None, **limit}


def error_of(found: Comparison) -> float:
    """Return the RMS error of an output over its variation; of whole numbers, how many differ."""
    return found.variation_error if found.agreement is None else 1 - found.agreement


Claim = Equivalent | Approximate


@dataclass(frozen=True)
class Step:
    """What was done to a network, and how its claim was checked: one entry of the report.

    Attributes:
        name: what was done.
        claim: what it claims of the network before and after it.
        outputs: the comparison of the two, by output; empty where the step was left out.
        seconds: how long it took, with the comparison.
        note: what a user should know.
        facts: what it found besides, JSON-ready.
    """

    name: str
    claim: Claim
    outputs: Comparisons
    seconds: float
    note: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON-ready data."""
        return {
            "name": self.name,
            "claim": self.claim.to_json(),
            "outputs": {name: found.to_json() for name, found in self.outputs.items()},
            "seconds": round(self.seconds, 3),
            "note": self.note,
            **({"facts": dict(self.facts)} if self.facts else {}),
        }


@dataclass(frozen=True)
class Context:
    """What a pass may ask for besides the file.

    Attributes:
        network: the network that the file is made from.
        reference: what the file has to compute: the outputs of ``network``, or of the file itself
            after its last approximation.
        settings: how ONNX is written.
        metadata: what the file says about where it comes from.
        stages: times and announces the stages.
        quantization: on what a network is quantized; None where nobody said.
    """

    network: Network
    reference: ReferenceRuns
    settings: OnnxSettings
    metadata: Mapping[str, str] = field(default_factory=dict)
    stages: Stages = field(default_factory=Stages)
    quantization: QuantizationSettings | None = None

    def first_drift(self, file: Path, tolerance: Tolerance) -> str | None:
        """Return the first layer whose output in ``file`` is not the network's.

        None where it can't be told, or where an approximation stands between the two.
        """
        if self.reference.network is not self.network:
            return None
        feeds = self.reference.golden()
        try:
            return self.network.first_drift_in(file, feeds, tolerance.rms_error)
        except Exception:  # a diagnosis that fails must not hide the fault that it is to explain
            return None


@dataclass(frozen=True)
class PassResult:
    """What a pass says when it has changed a file.

    Attributes:
        note: what a user should know.
        facts: what it found, JSON-ready.
    """

    note: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Pass(ABC):
    """A step that changes an ONNX file, and claims something of what it computes before and after.

    Calling a pass applies it and checks the claim; only :meth:`apply` is a pass' own.

    Attributes:
        name: what it is called in the registry, in reports and in errors.
        title: what it does, for those who watch.
        claim: what it claims, with a tolerance of its own.
        is_optional: whether the file is left as it was where the pass fails.
        advice: what to do where it breaks its claim.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[Claim]
    is_optional: ClassVar[bool] = False
    advice: ClassVar[str] = "please report this"

    def claim_in(self, context: Context) -> Claim:
        """Return what it claims under the settings of a context."""
        return self.claim

    def opened(self, file: Path, context: Context) -> OnnxFile:
        """Return the file that it leaves, ready to run."""
        return OnnxFile(file)

    @abstractmethod
    def apply(self, file: Path, context: Context) -> PassResult:
        """Change an ONNX file in its place.

        Raises:
            TrpexportError: it can't be done.
        """

    @final
    def __call__(self, file: Path, context: Context, *, seconds: float = 0.0) -> Step:
        """Change an ONNX file in its place, and check what the pass claims of it.

        Args:
            file: the file.
            context: what the pass may ask for.
            seconds: how long the file is compared; at least 8 inputs are.

        Raises:
            VerificationError: the pass breaks its claim; the first layer that drifts is named.
            NothingToDoError: an approximation is further off than was asked for.
            ModelError: the pass can't be applied, or what it leaves can't be run.
        """
        if self.is_optional:
            return self._attempt(file, context, seconds)
        step = self._apply_and_compare(file, context, seconds)
        wrong = step.claim.broken_by(step.outputs)
        if wrong is not None:
            broken = step.outputs[wrong]
            if isinstance(step.claim, Approximate):
                raise NothingToDoError(
                    f"{self.name} moves {wrong} by {error_of(broken):.2%} of its variation, more "
                    f"than the {step.claim.limit:.2%} allowed: nothing was written, allow more, or "
                    "choose another precision"
                )
            where = context.first_drift(file, step.claim.tolerance)
            advice = remedy(context.network, context.reference.golden(), broken, self.advice)
            raise VerificationError(
                f"{where or 'the network'} drifts: the pass {self.name} changed what the network "
                f"computes ({wrong}: {broken}); nothing was written, {advice}"
            )
        return step

    def _attempt(self, file: Path, context: Context, seconds: float) -> Step:
        """Apply the pass to a copy, which takes the file's place if all is well."""
        started = time.perf_counter()
        copy = file.with_name(f"{self.name}-{file.name}")
        shutil.copyfile(file, copy)
        try:
            step = self._apply_and_compare(copy, context, seconds)
            wrong = step.claim.broken_by(step.outputs)
            if wrong is None:
                copy.replace(file)
                return step
            reason = f"it changed what the network computes ({wrong}: {step.outputs[wrong]})"
        except TrpexportError as error:
            reason = str(error)
        copy.unlink(missing_ok=True)
        note = f"{self.name} was left out: {reason}"
        return Step(self.name, self.claim, {}, time.perf_counter() - started, note)

    def _apply_and_compare(self, file: Path, context: Context, seconds: float) -> Step:
        started = time.perf_counter()
        with context.stages(self.title):
            result = self.apply(file, context)
        with context.stages("verify the ONNX file"):
            try:
                _check_valid(file)
                outputs = context.reference.compare(self.opened(file, context), seconds=seconds)
            except ModelError as error:
                what_to_do = "" if self.is_optional else f": {self.advice}"
                raise ModelError(
                    f"the file that {self.name} wrote can't be used ({error}){what_to_do}"
                ) from error
        claim, seconds = self.claim_in(context), time.perf_counter() - started
        return Step(self.name, claim, outputs, seconds, result.note, result.facts)


def _check_valid(file: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"it is no valid ONNX: {first_line(error)}") from error
