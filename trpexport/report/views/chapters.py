"""Documents as chapters of a page: verdicts first, then what they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trpexport import bundle as files
from trpexport.judge.gate.check import Checked, GateResult
from trpexport.judge.gate.rules import Measurements
from trpexport.report.blocks import Block, Column, Kind, Range, Role, Table, Text, Tone, Value
from trpexport.report.documents import Bundle, Document, Record
from trpexport.report.page import (
    Chapter,
    Drawing,
    Lanes,
    Page,
    PageBlock,
    Plot,
    Section,
    Tile,
    Tiles,
)
from trpexport.report.shapes import is_variant
from trpexport.report.views.bench import bench_view
from trpexport.report.views.bench import verdict_of as verdict_on_speed
from trpexport.report.views.bundle import bundle_view
from trpexport.report.views.calibration import calibration_view
from trpexport.report.views.gate import gate_view
from trpexport.report.views.latency import latency_view, tuned_file
from trpexport.report.views.layers import cost_stacks, layers_table, spectra_plots, time_stack
from trpexport.report.views.plots import (
    latency_lanes,
    output_error,
    pareto_plot,
    ratio_lanes,
    speedup_lanes,
    training_plots,
)
from trpexport.report.views.sensitivity import sensitivity_lanes, sensitivity_view
from trpexport.report.views.sweep import sweep_plot, sweep_view
from trpexport.report.views.tiles import bundle_tiles
from trpexport.report.views.uncounted import not_counted, uncounted
from trpexport.report.views.verdict import verdict_view
from trpexport.verdict import verdict_of

Commands = Callable[[Bundle], Sequence[Text]]
_GATE = "gate"  # its verdict comes first
_MANY_PLOTS = 24  # spectra from which on they are folded away
_FACTS = (Column("what", "", Kind.NAME), Column("how", "", Kind.PROSE))


def page_of(documents: Sequence[Document], commands: Commands) -> Page:
    """Return a page about bundles and records, compared first where there are several bundles.

    Args:
        documents: what it is about.
        commands: what to type to make a bundle again.
    """
    bundles = _by_label([one for one in documents if isinstance(one, Bundle)])
    compared = _comparison({name: one.report for name, one in bundles.items()})
    records = [one for one in documents if isinstance(one, Record)]
    chapters = [
        *(_record_chapter(one) for one in records if one.kind == _GATE),
        *compared,
        *(_bundle_chapter(name, one, commands(one)) for name, one in bundles.items()),
        *(_record_chapter(one) for one in records if one.kind != _GATE),
    ]
    made_by = sorted({one.manifest["versions"]["trpexport"] for one in bundles.values()})
    footer = f"Exported by trpexport {', '.join(made_by)}" if made_by else "Made by trpexport"
    return Page(_title(documents), tuple(chapters), footer)


def _title(documents: Sequence[Document]) -> str:
    first, *others = (one.label for one in documents)
    return f"{first} and {len(others)} more" if len(others) > 1 else " and ".join([first, *others])


def _by_label(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """Return bundles by what they are called, by their paths where two are called the same."""
    labels = [one.label for one in bundles]
    return {one.label if labels.count(one.label) == 1 else str(one.path): one for one in bundles}


def drawings(page: Page) -> tuple[Drawing, ...]:
    """Return the large plots of a page, for a picture of them; of one that has none the small."""
    found = [
        block
        for chapter in page.chapters
        for blocks in (chapter.lead, *(section.blocks for section in chapter.sections))
        for block in blocks
        if isinstance(block, Plot | Lanes)
    ]
    large = [plot for plot in found if isinstance(plot, Lanes) or not plot.is_small]
    return tuple(large or found)


def _comparison(reports: Mapping[str, Mapping[str, Any]]) -> tuple[Chapter, ...]:
    """Compare several bundles; nothing where there is one."""
    if len(reports) < 2:
        return ()
    columns = (
        Column("bundle", "bundle", Kind.NAME),
        Column("macs", "fewer MACs", Kind.RATIO),
        Column("parameters", "fewer parameters", Kind.RATIO),
        Column("size", "file", Kind.BYTES),
        Column("error", "output moves by", Kind.SHARE, absent="no bound"),
        Column("speedup", "faster", Kind.RATIO, absent="not measured"),
        Column("interval", "95 % interval", Kind.RATIO),
    )
    rows = tuple(_compared(name, report) for name, report in reports.items())
    plot = pareto_plot(reports)
    blocks: tuple[PageBlock, ...] = (Table(columns, rows), *(() if plot is None else (plot,)))
    return (Chapter("Compared", blocks),)


def _compared(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    macs, parameters = report["macs"], report["parameters"]
    row: dict[str, Any] = {
        "bundle": name,
        "macs": Value(macs["ratio"], bound="at most" if uncounted(macs) else None)
        if macs["ratio"]
        else None,
        "parameters": parameters["before"] / parameters["after"] if parameters["after"] else None,
        "size": report["file_bytes"],
        "error": output_error(report),
        "speedup": None,
    }
    if "latency" not in report:
        return row
    speedup = tuned_file(report["latency"])["speedup"]
    return row | {"speedup": speedup["mid"], "interval": Range(speedup["low"], speedup["high"])}


def _bundle_chapter(name: str, bundle: Bundle, commands: Sequence[Text]) -> Chapter:
    report, plan = bundle.report, bundle.plan
    spectra = spectra_plots(plan)
    sections = [
        Section("What was done, and proved", bundle_view(report)),
        *_variants(bundle),
        Section("Layers", (layers_table(plan, report),)),
        Section("Where it went", cost_stacks(plan)),
        Section("Spectra", spectra, is_folded=len(spectra) > _MANY_PLOTS),
        Section("Calibration", calibration_view(report)),
        *_latency(report),
        Section("Environment", (_environment(bundle),)),
        Section("Make it again", tuple(commands)),
    ]
    lead = (
        *verdict_view(verdict_of(report)),
        Text(_what(bundle), tone=Tone.FAINT),
        Tiles(bundle_tiles(bundle)),
        *not_counted(uncounted(report["macs"])),
    )
    return Chapter(name, lead, tuple(section for section in sections if section.blocks))


def _what(bundle: Bundle) -> tuple[str | Value, ...]:
    report = bundle.report
    shapes = ", ".join(f"{'x'.join(map(str, one.shape))}" for one in bundle.plan.inputs.values())
    return (
        f"{report['architecture'] or 'network'} for inputs of {shapes}: {report['scheme']}, "
        f"{report['criterion']}; {report['layers_rewritten']} of {len(report['layers'])} layers "
        "rewritten",
    )


def _variants(bundle: Bundle) -> tuple[Section, ...]:
    """Show the precisions of a bundle side by side; nothing where there is one."""
    report = bundle.report
    steps = {s["name"]: s for s in report["steps"] if is_variant(s) and s["outputs"]}
    if not steps:
        return ()
    timed = report.get("latency", {}).get("files", {})
    sizes = {name: facts["bytes"] for name, facts in bundle.manifest["files"].items()}
    rows = [_variant(files.FLOAT32, None, report["file_bytes"], timed)]
    for name, step in steps.items():
        file = bundle.manifest.get("variants", {}).get(name, {}).get("file")
        rows.append(_variant(name, step, sizes.get(file), timed))
    columns = (
        Column("name", "precision", Kind.NAME),
        Column("size", "file", Kind.BYTES),
        Column("error", "output moves by", Kind.SHARE, absent="-"),
        Column("agreement", "same top-1", Kind.SHARE, absent="-"),
        Column("lost", "lost", Kind.NUMBER, absent="-"),
        Column("seconds", "time", Kind.SECONDS, absent="not measured"),
        Column("speedup", "faster", Kind.RATIO, absent="not measured"),
    )
    return (Section("Precisions", (Table(columns, tuple(rows)),)),)


def _variant(
    name: str, step: Mapping[str, Any] | None, size: int | None, timed: Mapping[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "size": size, "seconds": None, "speedup": None}
    row |= dict.fromkeys(("error", "agreement", "lost"))
    if name in timed:
        row |= {"seconds": timed[name]["seconds"], "speedup": timed[name]["speedup"]["mid"]}
    if step is None:
        return row
    worst = max(
        step["outputs"].values(),
        key=lambda one: math.inf if one["variation_error"] is None else one["variation_error"],
    )
    facts = step.get("facts", {})
    lost = None if facts.get("drop") is None else Value(facts["drop"], unit=facts["unit"])
    error, agreement = worst["variation_error"], worst["top1_agreement"]
    return row | {"error": error, "agreement": agreement, "lost": lost}


def _latency(report: Mapping[str, Any]) -> tuple[Section, ...]:
    if "latency" not in report:
        return ()
    facts = report["latency"]
    # What low rank has to beat in another precision stands beside it.
    timed = {f"original in {name}": one for name, one in facts["originals"].items()}
    ratios = {name: one["speedup"] for name, one in {**timed, **facts["files"]}.items()}
    lanes = ratio_lanes("Speed-up", ratios)
    return (Section("Measured time", (lanes, *latency_view(report))),)


def _environment(bundle: Bundle) -> Table:
    """Show what made a bundle, of what, and where it was timed."""
    manifest = bundle.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    rows = {"made": manifest.get("created"), "versions": versions}
    if source := manifest.get("source"):
        rows |= {"made of": source["file"], "SHA-256": source["sha256"]}
    rows |= {"opset": manifest.get("opset"), "exporter": manifest.get("exporter")}
    if latency := bundle.report.get("latency"):
        rows["timed on"] = latency["device"]["CPU"]
        rows["instruction sets"] = ", ".join(latency["device"]["instruction_sets"])
    seconds = bundle.report.get("seconds", {})
    rows["took"] = ", ".join(f"{stage} {took:.1f} s" for stage, took in seconds.items())
    return _facts(rows)


def _facts(rows: Mapping[str, Any]) -> Table:
    return Table(
        _FACTS, tuple({"what": name, "how": str(value)} for name, value in rows.items() if value)
    )


def _record_chapter(record: Record) -> Chapter:
    return _CHAPTERS[record.kind](record)


def _bench_chapter(record: Record) -> Chapter:
    facts = record.facts
    heading, *tables = bench_view(facts)
    plots = (*speedup_lanes(facts), *latency_lanes(facts))
    versions = facts["machine"]["versions"].items()
    rows = {
        "measured": facts.get("created"),
        "versions": ", ".join(f"{k} {v}" for k, v in versions),
    }
    return Chapter(
        f"Measured: {record.label}",
        (heading, *plots),
        (Section("Figures", tuple(tables)), Section("Environment", (_facts(rows),))),
    )


def _profile_chapter(record: Record) -> Chapter:
    facts = record.facts
    text = Text("The profiler slows each node down by microseconds: this is no latency.", Role.NOTE)
    if not facts["comparison"]:
        return Chapter(f"Time by layer: {record.label}", (text,))
    columns = (
        Column("layer", "layer", Kind.NAME),
        Column("base", facts["models"][0]["label"], Kind.SECONDS),
        Column("other", facts["models"][-1]["label"], Kind.SECONDS),
        Column("speedup", "speed-up", Kind.RATIO, absent="-"),
        Column("verdict", "verdict", Kind.PROSE),
    )
    rows = tuple(
        {
            "layer": row["name"],
            "base": row["base_seconds"],
            "other": row["other_seconds"],
            "speedup": row["speedup"],
            "verdict": verdict_on_speed(row["verdict"]),
        }
        for row in facts["comparison"]
    )
    kept = frozenset(i for i, row in enumerate(facts["comparison"]) if not row["is_rewritten"])
    table: Block = Table(columns, rows, faint=kept)
    return Chapter(f"Time by layer: {record.label}", (time_stack(facts), text, table))


def _gate_chapter(record: Record) -> Chapter:
    names = ("name", "title", "direction", "limit", "unit", "passed", "value", "low", "high")
    rules = [
        Checked(**{key: rule[key] for key in (*names, "reason")})
        for rule in (*record.facts["rules"], *record.facts.get("regressions", ()))
    ]
    result = GateResult(tuple(rules), record.facts["confident"], Measurements(), record.facts)
    *blocks, outcome = gate_view(result)
    return Chapter("Gate" if record.label == _GATE else f"Gate: {record.label}", (outcome, *blocks))


def _training_chapter(record: Record) -> Chapter:
    epochs = record.facts["epochs"]
    last = epochs[-1]
    tiles = [Tile("Epochs", str(last["epoch"]))]
    for label, key, scale in (
        ("Test top-1", "test_top1", 0.01),
        ("MACs left", "macs_ratio", 1.0),
        ("Mean rank of the full one", "mean_rank_share", 1.0),
    ):
        if last.get(key) is not None:
            tiles.append(Tile(label, (Value(last[key] * scale, Kind.SHARE),), "after the last"))
    lead: tuple[PageBlock, ...] = (Tiles(tuple(tiles)), *training_plots(epochs))
    return Chapter(f"Training: {record.label}", lead)


def _sensitivity_chapter(record: Record) -> Chapter:
    facts = record.facts
    lead = (*sensitivity_lanes(facts), *sensitivity_view(facts))
    return Chapter(f"Which layer costs what: {record.label}", lead)


def _sweep_chapter(record: Record) -> Chapter:
    facts = record.facts
    *tables, front = sweep_view(facts)
    return Chapter(f"Sweep: {facts['network']}", (front, *sweep_plot(facts), *tables))


_CHAPTERS: Mapping[str, Callable[[Record], Chapter]] = {
    "bench": _bench_chapter,
    "profile": _profile_chapter,
    _GATE: _gate_chapter,
    "sweep": _sweep_chapter,
    "sensitivity": _sensitivity_chapter,
    "training": _training_chapter,
}
