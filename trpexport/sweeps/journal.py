"""What came of each cell so far, in a database that no kill takes anything out of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpexport.errors import OutputError
from trpexport.sweeps.cells import Cell
from trpexport.timestamps import timestamp

NAME = "sweep.sqlite"
_VERSION = 1
_PATIENCE = 60.0  # seconds to wait while another process reads
_TABLES = """
CREATE TABLE IF NOT EXISTS request (facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
    scheme TEXT NOT NULL, target REAL NOT NULL, precision TEXT NOT NULL,
    facts TEXT, time TEXT, error TEXT, code INTEGER, created TEXT NOT NULL,
    PRIMARY KEY (scheme, target, precision)
);
"""


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        facts: what it saves and loses, JSON-ready; None where it failed.
        time: how long it takes, JSON-ready; None where that was not measured.
        error: the line of what failed, the cell or its timing; None where nothing did.
        code: the exit code of that.
    """

    facts: Mapping[str, Any] | None
    time: Mapping[str, Any] | None = None
    error: str | None = None
    code: int = 0


class Journal:
    """A sweep's journal: each cell is there whole or not at all.

    Args:
        folder: the sweep's directory.
        request: what all cells have in common: the network, the data, how they are judged.
        replace: begin anew where another sweep stands.

    Raises:
        OutputError: the file is no journal, can't be written, or is of another sweep.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], *, replace: bool = False) -> None:
        self._path = folder / NAME
        with self._connected() as database:
            known = database.execute("SELECT facts FROM request").fetchone()
            if known is not None:
                differing = sorted(_differing(json.loads(known[0]), request))
                if differing and not replace:
                    raise OutputError(
                        f"{folder} holds a sweep with another {' and another '.join(differing)}: "
                        "choose another place, or have it replaced",
                        parameters=("out", "replace"),
                    )
                if replace:
                    database.execute("DELETE FROM cells")
                    database.execute("DELETE FROM request")
            if known is None or replace:
                database.execute("INSERT INTO request VALUES (?)", (_text(request),))

    def put(self, cell: Cell, outcome: Outcome) -> None:
        """Keep what came of a cell.

        Raises:
            OutputError: it can't be written.
        """
        with self._connected() as database:
            database.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(cell.scheme, cell.target, cell.precision),
                    *(_text(outcome.facts), _text(outcome.time), outcome.error, outcome.code),
                    timestamp(),
                ),
            )

    def outcomes(self) -> dict[Cell, Outcome]:
        """Return what came of each cell so far.

        Raises:
            OutputError: the file is damaged.
        """
        with self._connected() as database:
            rows = database.execute(
                "SELECT scheme, target, precision, facts, time, error, code FROM cells"
            ).fetchall()
            return {
                Cell(*row[:3]): Outcome(_read(row[3]), _read(row[4]), row[5], row[6])
                for row in rows
            }

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open the database for one transaction, which counts if the block ends well."""
        try:
            connection = sqlite3.connect(self._path, timeout=_PATIENCE)
            with closing(connection) as database, database:
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version not in (0, _VERSION):
                    raise ValueError(f"it is of version {version}, this is version {_VERSION}")
                if version == 0:
                    database.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")
                yield database
        except (sqlite3.Error, ValueError) as error:
            raise OutputError(
                f"{self._path} can't be used as the journal of a sweep ({error}): remove it, or "
                "choose another place",
                parameters=("out",),
            ) from None


def _text(facts: Mapping[str, Any] | None) -> str | None:
    return None if facts is None else json.dumps(facts, sort_keys=True)


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _differing(known: Any, request: Mapping[str, Any]) -> set[str]:
    """Return the names of what is not the same."""
    if not isinstance(known, dict):
        return {"request"}
    return {name for name in {*known, *request} if known.get(name) != request.get(name)}
