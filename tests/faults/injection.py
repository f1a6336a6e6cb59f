"""Points and faults: counts what a worker says to the database, and breaks what it is told to break.

A point is a statement, a COPY, a fetch from a server-side cursor or a commit, numbered from 1 in the order in which the
process comes to it. A process that loads in one lane comes to the same points each time.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INERROR
from psycopg2.extensions import cursor as PlainCursor
from psycopg2.extras import RealDictCursor

from rowledger import db

T = TypeVar("T")

TRANSIENT = {
    "deadlock": "40P01",
    "serialization failure": "40001",
    "statement timeout": "57014",
    "lock timeout": "55P03",
    "disk full": "53100",
}
LOSSES = ("process killed", "session terminated", "backend killed")
AT_COMMITS = ("answer lost", "process killed after it")
KINDS = (*LOSSES, *TRANSIENT, *AT_COMMITS)


class Trace:
    """What workers did, a line each, written so that it survives them: seconds, process, word, rest."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, word: str, rest: object = "") -> None:
        os.write(self._file, f"{time.monotonic():.6f} {os.getpid()} {word} {rest}\n".encode())

    def close(self) -> None:
        os.close(self._file)


class Points:
    """Counts the points of a process and strikes at those that have a fault.

    The process stops itself, until somebody wakes it, after its commit number ``stop_after``, or after its statement
    number ``stop_inside``, in the middle of a transaction; if that is a COPY, in the middle of it.
    """

    def __init__(
        self, trace: Trace, faults: Mapping[int, str], stop_after: int | None, stop_inside: int | None
    ) -> None:
        self._trace = trace
        self._faults = faults
        self._stop_after, self._stop_inside = stop_after, stop_inside
        self._number = self._commits = 0
        self._one_by_one = threading.Lock()

    def at(self, connection: Any, what: str, go: Callable[[], T]) -> T:
        with self._one_by_one:
            self._number += 1
            number = self._number
        kind = self._faults.get(number)
        self._trace.write("point", f"{number} {what}")
        if kind:
            self._trace.write("fault", f"{number} {kind}")
            strike(connection, kind, what, go)
        done = go()
        if what == "COMMIT":
            self._commits += 1
            self._trace.write("commit", number)
        if number == self._stop_inside or (what == "COMMIT" and self._commits == self._stop_after):
            self._stop(f"{number} after {what}")
        return done

    def copying(self) -> None:
        """Called when a part of a COPY has been sent."""
        if self._number == self._stop_inside:
            self._stop_inside = None
            self._stop(f"{self._number} copying")

    def _stop(self, where: str) -> None:
        self._trace.write("stopped", where)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.05)  # the signal stops one thread after the other


def strike(connection: Any, kind: str, what: str, go: Callable[[], Any]) -> None:
    """Let a fault happen. Returns where the statement itself is going to find out."""
    if kind == "process killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "process killed after it":
        go()
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "session terminated":
        terminate(connection)
    elif kind == "backend killed":
        os.kill(connection.info.backend_pid, signal.SIGKILL)
    elif kind == "answer lost":
        go()
        connection.close()
        raise psycopg2.OperationalError("server closed the connection unexpectedly")
    elif connection.info.transaction_status == TRANSACTION_STATUS_INERROR:
        terminate(connection)  # what has failed already cannot be refused any more, only be cut off
    else:
        refuse(connection, TRANSIENT[kind], rolled_back=what == "COMMIT")


def terminate(connection: Any) -> None:
    """End the database session of a connection, and wait until it is gone."""
    other = psycopg2.connect(connection.url)
    other.autocommit = True
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))
    other.close()


def refuse(connection: Any, sqlstate: str, *, rolled_back: bool) -> None:
    """Let the server itself refuse, in this very transaction; one that cannot commit is rolled back by the server."""
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'a fault' USING ERRCODE = '{sqlstate}'; END $$"
    try:
        with psycopg2.extensions.connection.cursor(connection, cursor_factory=PlainCursor) as cursor:
            cursor.execute(statement)
    finally:
        if rolled_back and not connection.closed:
            connection.rollback()


@functools.cache
def _names() -> dict[str, str]:
    """The beginning of a query -> where it stands."""
    files = sorted(db.resources.files("rowledger").joinpath("sql").iterdir(), key=lambda file: file.name)
    found = {}
    for station in [file.name.removesuffix(".sql") for file in files if file.name.endswith(".sql")]:
        for name, body in db.queries(station).items():
            found[body.partition("{")[0][:60]] = f"{station}.{name}"
    return found


def name_of(query: str) -> str:
    """What a statement is called in reports."""
    return next(
        (name for start, name in _names().items() if start and query.startswith(start)), query[:40]
    ).replace("\n", " ")


class _Read:
    """What is copied, a little of it first."""

    def __init__(self, file: Any, points: Points) -> None:
        self._file, self._points, self._read = file, points, 0

    def read(self, size: int) -> Any:
        if self._read:
            self._points.copying()
        part = self._file.read(size if self._read else 40)
        self._read += len(part)
        return part


class Cursor(RealDictCursor):
    """A cursor whose statements are points."""

    points: Points

    def execute(self, query: Any, params: Any = None) -> Any:
        return self._at(self._named(query), super().execute, query, params)

    def copy_expert(self, query: Any, file: Any) -> Any:
        return self._at(f"COPY {self._named(query)}", super().copy_expert, query, _Read(file, self.points))

    def __iter__(self) -> Any:
        return self._at("FETCH", super().__iter__) if self.name else super().__iter__()

    def _at(self, what: str, does: Callable[..., Any], *arguments: Any) -> Any:
        return self.points.at(self.connection, what, lambda: does(*arguments))

    def _named(self, query: Any) -> str:
        return name_of(query if isinstance(query, str) else query.as_string(self))


class Connection(db.Connection):
    """A connection whose commits are points, and the statements of its cursors."""

    points: Points

    def commit(self) -> None:
        self.points.at(self, "COMMIT", super().commit)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        return super().cursor(*arguments, **{"cursor_factory": Cursor} | options)


def inject(points: Points) -> None:
    """From here on every connection of this process passes through ``points``."""
    Connection.points = Cursor.points = points
    db.Connection = Connection  # type: ignore[misc]  # connect() makes what stands under this name
