"""A name-to-entry table that refuses duplicates and answers a wrong name with the near ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

from trpexport.errors import TrpexportError

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name.

    Args:
        kind: what an entry is, for messages ("scheme", "criterion").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add ``entry`` under ``name`` and return it.

        Raises:
            ValueError: the name is taken (a programming error, not a user's).
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            TrpexportError: there is none; the message lists the near ones, else all.
        """
        try:
            return self._entries[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._entries, n=5)
            choice = "did you mean " if near else "choose from "
            names = ", ".join(near or sorted(self._entries))
            raise TrpexportError(f"unknown {self.kind} {name!r}: {choice}{names}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield (name, entry) pairs in the order of registration."""
        yield from self._entries.items()
