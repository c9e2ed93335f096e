"""Which layers may be rewritten, and what their ranks are multiples of, as it is typed."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from trpexport.errors import TrpexportError

from .idle import is_given

RankMultiple = Annotated[
    str,
    typer.Option(
        help="Round ranks up to multiples of this number; a layer that no multiple makes cheaper "
        "is left. auto: the number of channels that the processor works on at a time, or half or "
        "a quarter of it. 1: no rounding, as in the TRP paper."
    ),
]


def multiple(text: str) -> int | str:
    """Return the rank multiple that was typed.

    Raises:
        TrpexportError: it is neither a number of at least 1 nor auto.
    """
    from trpexport.choose.alignment import AUTO

    if text == AUTO:
        return AUTO
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise TrpexportError(f"--rank-multiple {text!r} must be a number of at least 1, or auto")
    return int(text)


def selection(
    context: typer.Context,
    include: list[str] | None,
    exclude: list[str] | None,
    stride_1_only: bool,
    rank_multiple: str,
    provider: str,
) -> dict[str, Any]:
    """Return which layers may be rewritten and at which ranks, as choosers take it.

    Raises:
        TrpexportError: the multiple is neither a number nor auto.
    """
    return {
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "stride_1_only": stride_1_only,
        "rank_multiple": multiple(rank_multiple),
        "provider": provider if is_given(context, "provider") else None,
    }
