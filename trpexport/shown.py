"""Results in a session of Python: a line each, and a small table in a notebook."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Iterable, Mapping

from trpexport.text import printable, quantity, times

_MAX_VALUE = 80  # characters


class Shown:
    """A result that says the most important of itself, as fields of a name and a value each.

    A data class of this kind leaves its own ``__repr__`` out: ``@dataclass(repr=False)``.
    """

    @abstractmethod
    def shown(self) -> Mapping[str, object]:
        """Return what to show of it, in few words."""

    def __repr__(self) -> str:
        parts = (f"{name}={printable(value, _MAX_VALUE)}" for name, value in self.shown().items())
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        rows = "".join(
            f"<tr><th>{_escaped(name)}</th><td>{_escaped(value)}</td></tr>"
            for name, value in self.shown().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def change(before: float, after: float, unknown: Iterable[str] = ()) -> str:
    """Return a count before and after, and how many times fewer; as bounds where some are unknown.

    Args:
        before: the count before.
        after: the count after.
        unknown: what was not counted.
    """
    bound, most = ("≥ ", "≤ ") if [*unknown] else ("", "")
    saved = f" ({most}{times(before / after)} fewer)" if after and after != before else ""
    return f"{bound}{quantity(before)} -> {bound}{quantity(after)}{saved}"


def _escaped(value: object) -> str:
    return html.escape(printable(value, _MAX_VALUE))
