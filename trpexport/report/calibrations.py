"""Tables about calibrated networks: what each layer loses, and where the budget went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from trpexport.report.tables import Parts, plain_table
from trpexport.report.text import percent


def calibration_table(report: Mapping[str, Any]) -> Parts:
    """Show each rewritten layer's errors before and after calibration, and its shares.

    Args:
        report: the content of ``report.json``.
    """
    facts = report["calibration"]
    if facts is None:
        return ()
    macs = {layer["name"]: layer["macs"]["after"] for layer in report["layers"]}
    total = report["macs"]["after"]
    has_shares = any("error_share" in layer for layer in facts["layers"])
    table = plain_table()
    table.add_column("calibrated layer", no_wrap=True)
    table.add_column("scheme", no_wrap=True)
    for name in ("rank", "weight error", "output error by SVD", "calibrated", "share of MACs"):
        table.add_column(name, justify="right")
    if has_shares:
        table.add_column("of the error", justify="right")
    for layer in facts["layers"]:
        row = [layer["name"], layer["scheme"], str(layer["rank"])]
        row += [percent(layer[key]) for key in ("weight_error", "error_before", "error_after")]
        row.append(percent(macs[layer["name"]] / total))
        if has_shares:
            row.append(percent(layer["error_share"]))
        table.add_row(*row)
    return "", table, escape(_sentence(facts))


def _sentence(facts: Mapping[str, Any]) -> str:
    text = (
        f"Calibrated on {facts['images']} images of {facts['data']} ({facts['split']}); on them "
        f"the output moves by\n{percent(facts['output_error'])} of its variation"
    )
    top1 = facts.get("top1")
    if top1 is not None:
        text += (
            f"; top-1 {top1['before']:.2f} -> {top1['after']:.2f} % on {top1['images']} "
            f"{top1['split']} images"
        )
    return text
