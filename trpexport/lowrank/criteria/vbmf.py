"""Let variational Bayes tell signal from noise: no number to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from trpexport.errors import MissingDependencyError, PlanError, TrpexportError
from trpexport.installing import install_command
from trpexport.lowrank.criteria import CRITERIA
from trpexport.lowrank.criteria.base import Criterion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Root of the equation that defines the threshold, as a multiple of sqrt(rows / columns):
# Nakajima et al. 2013, after equation 16.
_TAU_PER_ROOT_ALPHA = 2.5129


@dataclass(frozen=True)
class Vbmf(Criterion):
    """Analytic empirical variational Bayes matrix factorization (EVBMF).

    Nakajima, Sugiyama, Babacan and Tomioka, "Global Analytic Solution of Fully-observed
    Variational Bayesian Matrix Factorization", JMLR 14 (2013): the matrix is taken as low rank
    plus Gaussian noise; the noise variance minimises the free energy (section 4.2, corollary 3),
    and the singular values above the threshold of theorem 4 are the signal.
    """

    name = "vbmf"

    @classmethod
    def parse(cls, value: str | None) -> Self:
        """Build the criterion; it takes no value."""
        if value is not None:
            raise TrpexportError(
                f"the criterion vbmf takes no number: write vbmf, not vbmf:{value}"
            )
        return cls()

    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return the number of singular values above the noise, at least 1.

        Raises:
            PlanError: the values are not those of one matrix.
        """
        if shape is None:
            raise PlanError(
                "vbmf judges one matrix, and the scheme cuts several together: choose another "
                "criterion, such as energy:0.9"
            )
        rows, columns = min(shape), max(shape)
        if singular_values[0] == 0.0:
            return 1
        # The free energy is invariant to the scale; dividing it out keeps the search well scaled.
        squares = np.square(singular_values / singular_values[0])
        noise = _noise_variance(squares, rows, columns)
        threshold = columns * noise * _threshold(rows / columns)
        return max(1, int((squares > threshold).sum()))

    def __str__(self) -> str:
        return self.name


def _threshold(alpha: float) -> float:
    """Return the smallest normalised squared singular value that is signal (theorem 4)."""
    tau = _TAU_PER_ROOT_ALPHA * np.sqrt(alpha)
    return float((1 + tau) * (1 + alpha / tau))


def _noise_variance(squares: NDArray[np.float64], rows: int, columns: int) -> float:
    """Return the noise variance that minimises the free energy, by a bounded search."""
    try:
        from scipy.optimize import minimize_scalar
    except ModuleNotFoundError:
        raise MissingDependencyError(
            f"the criterion vbmf needs scipy: {install_command('cpu')}"
        ) from None
    alpha = rows / columns
    x_bar = _threshold(alpha)
    upper = float(squares.sum() / (rows * columns))
    # At most this many components can be signal (corollary 3), which bounds the variance below.
    most = min(int(np.ceil(rows / (1 + alpha))) - 1, rows - 1)
    lower = float(max(squares[most] / (columns * x_bar), squares[most:].mean() / columns))
    lower = max(lower, float(np.finfo(np.float64).eps) ** 2)  # less than rounding is no noise
    if lower >= upper:
        return upper
    found = minimize_scalar(
        lambda log_noise: _free_energy(float(np.exp(log_noise)), squares, rows, columns),
        bounds=(np.log(lower), np.log(upper)),
        method="bounded",
    )
    return float(np.exp(found.x))


def _free_energy(noise: float, squares: NDArray[np.float64], rows: int, columns: int) -> float:
    """Return the free energy at a noise variance, up to constants (equation 34)."""
    alpha = rows / columns
    x = squares / (columns * noise)
    signal = x > _threshold(alpha)
    z1, z2 = x[signal], np.maximum(x[~signal], np.finfo(np.float64).tiny)
    tau = 0.5 * (z1 - (1 + alpha) + np.sqrt((z1 - (1 + alpha)) ** 2 - 4 * alpha))
    return float(
        np.sum(z2 - np.log(z2))
        + np.sum(z1 - tau)
        + np.sum(np.log((tau + 1) / z1))
        + alpha * np.sum(np.log(tau / alpha + 1))
    )


CRITERIA.register(Vbmf.name, Vbmf)
