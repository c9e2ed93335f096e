"""Times that were measured, kept from run to run: a database in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpexport.errors import OutputError
from trpexport.files import writable_folder
from trpexport.latency.ways import Way
from trpexport.timestamps import timestamp

NAME = "latency.sqlite"
_VERSION = 1
_PATIENCE = 60.0  # seconds to wait while another process writes
_TABLES = """
CREATE TABLE IF NOT EXISTS conditions (
    key TEXT PRIMARY KEY, facts TEXT NOT NULL, created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS times (
    conditions TEXT NOT NULL, layer TEXT NOT NULL, scheme TEXT NOT NULL, rank INTEGER NOT NULL,
    seconds REAL NOT NULL, original REAL NOT NULL, deviation REAL NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (conditions, layer, scheme, rank)
);
"""


@dataclass(frozen=True)
class WayTime:
    """A way to write a layer beside the layer as it is, timed in turns.

    Attributes:
        seconds: of the chain.
        original: of the layer as it is.
        deviation: standard error of ``seconds``.
    """

    seconds: float
    original: float
    deviation: float

    @classmethod
    def mean(cls, times: Sequence[WayTime]) -> WayTime:
        """Return the mean of independent times."""
        count = len(times)
        return cls(
            seconds=sum(time.seconds for time in times) / count,
            original=sum(time.original for time in times) / count,
            deviation=sum(time.deviation**2 for time in times) ** 0.5 / count,
        )

    @property
    def relative_deviation(self) -> float:
        """The standard error, relative to the layer as it is."""
        return self.deviation / self.original if self.original else 0.0

    @property
    def ratio(self) -> float:
        """The time relative to that of the layer as it is."""
        return self.seconds / self.original if self.original else 1.0


class Store:
    """A database of times; any number of processes may use it at once.

    Args:
        folder: where it lies, made if it is not there; None keeps nothing from run to run.

    Raises:
        OutputError: the folder can't be made or written to.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._path = None if folder is None else writable_folder(Path(folder)) / NAME
        self._memory = None if folder is not None else sqlite3.connect(":memory:")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        if self._memory is not None:
            self._memory.close()

    def times(self, facts: Mapping[str, Any], layer: str) -> dict[Way, WayTime]:
        """Return what is known of a layer under some conditions.

        Args:
            facts: machine, runtime and conditions.
            layer: its signature.

        Raises:
            OutputError: the file is no such database.
        """
        with self._connected() as database:
            rows = database.execute(
                "SELECT scheme, rank, seconds, original, deviation FROM times "
                "WHERE conditions = ? AND layer = ?",
                (key_of(facts), layer),
            ).fetchall()
        return {Way(str(row[0]), int(row[1])): WayTime(*map(float, row[2:])) for row in rows}

    def put(
        self,
        facts: Mapping[str, Any],
        times: Mapping[str, Mapping[Way, WayTime]],
    ) -> None:
        """Keep what was measured under some conditions; all of it or nothing.

        Args:
            facts: machine, runtime and conditions.
            times: by signature of the layer.

        Raises:
            OutputError: it can't be written.
        """
        key, now = key_of(facts), timestamp()
        rows = [
            (
                *(key, layer, way.scheme, way.rank),
                *(time.seconds, time.original, time.deviation, now),
            )
            for layer, ways in times.items()
            for way, time in ways.items()
        ]
        with self._connected() as database:
            database.execute(
                "INSERT OR REPLACE INTO conditions VALUES (?, ?, ?)",
                (key, json.dumps(facts, sort_keys=True), now),
            )
            database.executemany(
                f"INSERT OR REPLACE INTO times VALUES ({', '.join('?' * 8)})", rows
            )

    def contents(self) -> list[dict[str, Any]]:
        """Return all that is known, JSON-ready, by conditions.

        Raises:
            OutputError: the file is no such database.
        """
        with self._connected() as database:
            conditions = database.execute(
                "SELECT key, facts FROM conditions ORDER BY created"
            ).fetchall()
            return [
                {
                    **json.loads(facts),
                    "times": [
                        dict(
                            zip(
                                ("layer", "scheme", "rank", "seconds", "original"), row, strict=True
                            )
                        )
                        for row in database.execute(
                            "SELECT layer, scheme, rank, seconds, original FROM times "
                            "WHERE conditions = ? ORDER BY layer, scheme, rank",
                            (key,),
                        )
                    ],
                }
                for key, facts in conditions
            ]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open the database for one transaction, which counts if the block ends well."""
        try:
            if self._memory is not None:
                with _begun(self._memory):
                    yield self._memory
                return
            assert self._path is not None
            connection = sqlite3.connect(self._path, timeout=_PATIENCE)
            with closing(connection) as database, _begun(database):
                yield database
        except (sqlite3.Error, ValueError) as error:
            raise OutputError(
                f"{self._path} can't be used as a table of times ({error}): remove it, or name "
                "another folder",
                parameters=("cache",),
            ) from None


@contextmanager
def _begun(database: sqlite3.Connection) -> Iterator[None]:
    """Make the tables if they are not there, and commit if the block ends well.

    Raises:
        ValueError: another version of this library made them.
    """
    with database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise ValueError(f"it is of version {version}, this is version {_VERSION}")
        if version == 0:
            database.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")
        yield


def key_of(facts: Mapping[str, Any]) -> str:
    """Return what names conditions in the database."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
