"""Matrix products that see few rows: the optimum of the whole problem, never formed; new rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trpexport.lowrank.chain import truncated
from trpexport.lowrank.fit.rows import LayerRows, Rows, shrinkage
from trpexport.lowrank.fit.rows_fit import RowsFit
from trpexport.ops import LinearOp

SCHEMES = ["channel", "spatial"]


def covariance(p: Tensor) -> tuple[Tensor, float]:
    """Return that of Ledoit and Wolf by its definition, (K, K), and how far it is shrunk."""
    rows = p.double() - p.double().mean(0)
    n, inputs = rows.shape
    plain = rows.mT @ rows / n
    mean = float(plain.trace()) / inputs
    identity = mean * torch.eye(inputs, dtype=torch.float64)
    away = float((plain - identity).square().sum())
    noise = sum(float((row[:, None] * row - plain).square().sum()) for row in rows) / n**2
    share = min(noise, away) / away
    return (1 - share) * plain + share * identity, share


def rooted(square: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(square)
    root: Tensor = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    return root


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12), st.booleans(), st.sampled_from(SCHEMES))
def test_the_cut_is_the_best_of_its_rank(seed: int, n: int, weighted: bool, scheme: str) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, outputs, rank = 20, 7, 3
    kernel, p = random(outputs, inputs), random(n, 5) @ random(5, inputs) + random(inputs)
    op = LinearOp(inputs, outputs, bias=True)
    half = random(outputs, outputs)
    metric = half @ half.mT + torch.eye(outputs) if weighted else None
    bias = random(outputs)
    rows = Rows(p, p @ kernel.mT + bias)
    fit = RowsFit(kernel, op, scheme, LayerRows(rows, Rows(p[:0], rows.y[:0]), metric))
    # By Eckart and Young, over matrices of all inputs.
    a, g = covariance(p)[0], torch.eye(outputs).double() if metric is None else metric
    a, g = rooted(a), rooted(g)
    left, values, right = torch.linalg.svd(g @ kernel @ a, full_matrices=False)
    expected = torch.linalg.pinv(g) @ (left[:, :rank] * values[:rank]) @ right[:rank]
    chain = fit.chain(rank)
    assert chain.bias is not None
    torch.testing.assert_close(chain.product @ a, expected, rtol=1e-5, atol=1e-6)
    lost = float(values[rank:].square().sum())
    assert fit.errors([rank])[0] == pytest.approx(lost, rel=1e-6, abs=1e-9)
    assert fit.variance == pytest.approx(float(values.square().sum()), rel=1e-6)
    mean = chain.product @ p.mean(0) + chain.bias
    torch.testing.assert_close(mean, rows.y.mean(0))
    first, second = (kernel.reshape(len(kernel), -1) for kernel in chain.kernels)
    torch.testing.assert_close(first @ first.mT, second.mT @ second, rtol=1e-4, atol=1e-6)


def test_what_is_missing_of_the_targets_is_corrected_in_the_span_of_the_rows() -> None:
    torch.manual_seed(0)
    inputs, outputs, n = 30, 6, 8
    kernel, p = torch.randn(outputs, inputs).double(), torch.randn(n, inputs).double()
    target = kernel + torch.randn(outputs, inputs)
    other = torch.randn(4, inputs).double()
    rows = LayerRows(Rows(p, p @ target.mT), Rows(other, other @ target.mT), None)
    fit = RowsFit(kernel, LinearOp(inputs, outputs, bias=True), "channel", rows)
    found = fit.chain(outputs).product
    # Ridge regression of what is missing, over all inputs.
    every = torch.cat([p, other])
    centred = every - every.mean(0)
    ridge = fit.best_ridge(outputs) * float(centred.square().mean()) * len(every)
    normal = centred.mT @ centred + ridge * torch.eye(inputs)
    more = torch.linalg.solve(normal, centred.mT @ (centred @ (target - kernel).mT)).mT
    torch.testing.assert_close(found, kernel + more)
    missing = torch.linalg.qr(centred.mT)[0]
    rest = found - kernel
    torch.testing.assert_close(rest - rest @ missing @ missing.mT, 0 * rest, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40))
def test_covariances_are_shrunk_as_ledoit_and_wolf_do(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, 16) ** -1.0
    p = torch.randn(n, 15, generator=generator).double() * scale
    centred = p - p.mean(0)
    found, mean = shrinkage(centred @ centred.mT, 15)
    assert found == pytest.approx(covariance(p)[1], rel=1e-6, abs=1e-9)
    assert mean == pytest.approx(float(centred.square().mean()))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rank", [4, 30])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_at_least_as_close_as_the_svd_on_other_rows(scheme: str, rank: int, noise: float) -> None:
    torch.manual_seed(rank)
    inputs, outputs, n = 400, 60, 24
    spread = torch.randn(40, inputs) * torch.arange(1, 41)[:, None] ** -0.5
    kernel, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    op = LinearOp(inputs, outputs, bias=True)

    def rows(count: int) -> Rows:
        wanted = torch.randn(count, 40) @ spread
        # What a decomposed network gives in front of the layer.
        given = wanted + noise * wanted.std() * torch.randn(count, inputs)
        return Rows(given.relu(), (wanted.relu() @ kernel.mT + bias).double())

    fit = RowsFit(kernel, op, scheme, LayerRows(rows(n), rows(n // 3), None))
    plain = truncated(kernel, bias, op, scheme=scheme, rank=rank)
    new = rows(500)
    judge = RowsFit(kernel, op, scheme, LayerRows(new, Rows(new.p[:0], new.y[:0]), None))
    chain = fit.chain(rank, fit.best_ridge(rank))
    assert judge.relative_error(chain, chain.bias) < 0.9 * judge.relative_error(plain, bias)
    # It is what a chain of the network gives.
    assert chain.bias is not None
    given = new.p.double() @ chain.product.mT + chain.bias
    expected = float((given - new.y).square().sum() / new.y.square().sum()) ** 0.5
    assert judge.relative_error(chain, chain.bias) == pytest.approx(expected)


@pytest.mark.parametrize(
    "p",
    [torch.randn(1, 12), torch.zeros(5, 12), torch.ones(5, 12), torch.randn(1, 12).expand(4, -1)],
    ids=["one row", "zeros", "ones", "all the same"],
)
@pytest.mark.parametrize("held_out", [0, 1])
@pytest.mark.parametrize("kernel", [torch.randn(5, 12), torch.zeros(5, 12)], ids=["any", "zero"])
def test_rows_that_say_nothing_leave_the_svd(p: Tensor, held_out: int, kernel: Tensor) -> None:
    bias = torch.randn(5)
    op = LinearOp(12, 5, bias=True)
    rows = Rows(p, (p @ kernel.mT + bias).double())
    others = Rows(p[:held_out], rows.y[:held_out])
    fit = RowsFit(kernel, op, "channel", LayerRows(rows, others, None))
    chain = fit.chain(2, fit.best_ridge(2))
    assert chain.bias is not None
    plain = truncated(kernel, bias, op, scheme="channel", rank=2)
    torch.testing.assert_close(chain.product, plain.product, rtol=1e-5, atol=1e-6)
    given = p.double() @ chain.product.mT + chain.bias
    torch.testing.assert_close(given, rows.y, rtol=1e-5, atol=1e-5)
    assert 0 <= fit.relative_error(chain, chain.bias) < 1e-5
