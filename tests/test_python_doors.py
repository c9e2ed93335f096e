"""What one meets who uses the library from Python: arguments, paths, results in a session."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trpexport as tx
from tests.test_api import CHECKPOINT, QUICK, SHAPE, Net, images
from trpexport.compare import Comparison
from trpexport.judge.gate.rules import RULES
from trpexport.runtime.verify import Verification
from trpexport.shown import Shown, change
from trpexport.verdict import REAL, Lost, Outcome, Verdict

FUNCTIONS = [name for name in dir(tx) if inspect.isfunction(getattr(tx, name))]
CLASSES = [
    name
    for name in dir(tx)
    if inspect.isclass(getattr(tx, name)) and not issubclass(getattr(tx, name), Exception)
]


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_every_argument_has_a_name(name: str) -> None:
    kinds = {p.kind for p in inspect.signature(getattr(tx, name)).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_typo_is_told_by_python(name: str) -> None:
    with pytest.raises(TypeError, match="schem"):
        getattr(tx, name)("x", "y", "z", schem="x")


@pytest.mark.parametrize(
    ("function", "settings"),
    [(tx.bench, tx.BenchSettings), (tx.export, tx.ExportSettings), (tx.train, tx.RunSettings)],
)
def test_arguments_are_the_settings(function: Callable[..., Any], settings: type[Any]) -> None:
    """Each setting is an argument, with the same default."""
    parameters = inspect.signature(function).parameters
    for field in dataclasses.fields(settings):
        if field.name in {"models", "recipe"}:
            continue
        given = parameters[field.name].default
        if field.default is dataclasses.MISSING or given is None:
            assert given in (None, inspect.Parameter.empty)
        else:
            assert given == field.default, field.name


def test_every_rule_of_the_gate_is_an_argument() -> None:
    parameters = inspect.signature(tx.gate).parameters
    for name in dict(RULES.items()):
        assert parameters[name.replace("-", "_")].default is None


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doors")
    small = tx.decompose(Net(), tx.ByCriterion("spatial", "rank:4"), example=SHAPE)
    return tx.export(small, str(folder / "b"), **QUICK).path


def test_a_path_may_be_a_text_at_every_door(bundle: Path, tmp_path: Path) -> None:
    def both(call: Callable[[Any], Any], path: Path) -> None:
        assert repr(call(str(path))) == repr(call(path))

    both(tx.count, bundle)
    both(lambda path: tx.verify(path).is_equivalent, bundle)
    both(tx.read_plan, bundle / "plan.json")
    both(tx.load, CHECKPOINT)
    both(lambda path: tx.verify(path, path).is_equivalent, bundle / "model.onnx")
    both(lambda path: tx.gate(path, path, max_parameters="1M").passed, bundle)
    fast: Any = {"min_time": 0.01, "min_runs": 2, "memory": False, "warmup_seconds": 0.01}
    both(lambda path: tx.bench([path], **fast)["kind"], bundle)
    both(lambda path: tx.decompose(path, tx.ByCriterion("spatial", "rank:4")).plan, CHECKPOINT)
    both(lambda path: tx.save_checkpoint(path, Net(), architecture=None), tmp_path / "a.pt")
    for cache in (str(tmp_path / "cache"), tmp_path / "cache"):
        budget = tx.ByBudget(macs=0.6, cache=cache)
        assert tx.decompose(Net(), budget, images=images()).plan.rewritten
    with pytest.raises(tx.TrpexportError, match=r"can't read the plan none\.json"):
        tx.read_plan("none.json")


def results(bundle: Path) -> list[Shown]:
    small = tx.decompose(Net(), tx.ByCriterion("spatial", "rank:4"), example=SHAPE)
    comparison = Comparison(1, 2e-6, 1e-6, 1.0, None, None, 1e-6, None)
    return [
        small,
        small.plan,
        tx.BundleReport(bundle, small.plan, {"huge": list(range(10_000))}),
        tx.count(bundle),
        tx.load(CHECKPOINT),
        tx.gate(bundle, bundle, max_parameters=1),
        Verification({"output": comparison}),
        Verdict(Outcome.PAYS, {"macs": 2.0}, Lost(40, REAL, True, 0.1, agreement=0.97)),
    ]


def test_results_are_shown_in_a_line_and_as_a_small_table(bundle: Path) -> None:
    for result in results(bundle):
        line, table = repr(result), result._repr_html_()
        assert line.startswith(f"{type(result).__name__}(")
        assert "\n" not in line
        assert len(line) < 500
        assert table.startswith("<table>")
        assert table.count("<tr>") == len(result.shown()) <= 8
        assert len(table) < 2000


def test_what_is_shown_is_true(bundle: Path) -> None:
    plan = tx.read_plan(bundle / "plan.json")
    before = (3 * 16 + 2 * 16 * 16) * 9 * 144 + 160
    after = before - 2 * (16 * 16 * 9 * 144 - 4 * (16 * 3 + 16 * 3) * 144)
    assert (plan.macs_before, plan.macs_after) == (before, after)
    assert repr(plan) == (
        "Plan(network=Net, scheme=spatial, criterion=rank:4, rewritten=2 of 4 layers, "
        f"macs={before / 1e3:.3g} k -> {after / 1e3:.3g} k ({before / after:.2f}x fewer))"
    )
    failed = tx.gate(bundle, bundle, max_parameters=1)
    assert repr(failed) == "GateResult(passed=False, rules=1, failed=max-parameters)"
    verdict = Verdict(Outcome.PAYS, {"macs": 2.0}, Lost(40, REAL, True, 0.1, agreement=0.97))
    assert repr(verdict) == "Verdict(outcome=pays, macs=2.00x, error=0.1, agreement=0.97)"
    assert change(2e6, 1e6, ["FFT"]) == "≥ 2 M -> ≥ 1 M (≤ 2.00x fewer)"


def test_names_of_strangers_do_no_harm() -> None:
    plan = tx.Plan("spatial", "rank:4", tx.read_plan, (), architecture="<script>\n\x1b[31m&")  # type: ignore[arg-type]
    assert "<script>" not in plan._repr_html_()
    assert "&lt;script&gt;" in plan._repr_html_()
    assert "\n" not in repr(plan)
    assert "\x1b" not in repr(plan)


def test_the_record_of_a_result_stays_what_it_was(bundle: Path) -> None:
    assert json.loads(json.dumps(tx.count(bundle).to_json()))["macs"]


def test_a_function_of_an_older_version_names_the_one_of_today() -> None:
    module: Any = tx
    with pytest.raises(AttributeError, match=r"^trpexport\.make_plan is gone: use trpexport\.dec"):
        _ = module.make_plan
    with pytest.raises(AttributeError, match="no attribute 'makeplan'"):
        _ = module.makeplan
    for name in module._FORMER.values():
        assert name in dir(tx)
