"""``trpexport doctor``: what is installed, what works, and the command for what does not."""

from __future__ import annotations

from .console import show, show_json
from .options import Json


def doctor(as_json: Json = False) -> None:
    """Try what is installed: packages of each extra, and execution providers on a small network.

    What is missing is named with the command that brings it.

    Example:
        trpexport doctor
    """
    from trpexport.measure.doctor import EXTRAS, diagnose
    from trpexport.report.views.doctor import doctor_view

    facts = diagnose()
    if as_json:
        show_json(facts)
    else:
        show(*doctor_view(facts, EXTRAS))
