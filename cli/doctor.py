"""``trpexport doctor``: what is installed, what works, and the command for what does not."""

from __future__ import annotations

from .console import show, show_json
from .options import Json


def doctor(as_json: Json = False) -> None:
    """Check the installation: the packages of each extra, and the execution providers.

    Each provider is tried on a small network. For what is missing, shows the command to install it.

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
