"""What the desk was given when it was made, and how a route asks for it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import Depends, Request
from jinja2 import Environment
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from rowledger.db import Connection
from rowledger.desk.shelf import Shelf
from rowledger.errors import TryAgain
from rowledger.judges import Case, Judgement
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate

if TYPE_CHECKING:
    from rowledger.desk.access import Guard

IDLE_CONNECTIONS = 8


@dataclass(frozen=True)
class Schedule:
    """When the batches of a kind are worked off: the next run, none if that is not known, or a DAG that is paused."""

    paused: bool
    next_run: datetime | None


class Engine(Protocol):
    """What works batches off, seen from the desk. Paths are those of its own pages, from the root of the server."""

    def schedule(self, kind: str) -> Schedule | None:
        """When batches of the kind are worked off; None if nobody knows."""
        ...

    def run_now(self, kind: str, by: str) -> str:
        """Start a run for the waiting batches of a kind; returns its id. Raises SetupError."""
        ...

    def kind_of(self, dag: str) -> str | None:
        """The kind whose batches a DAG works off."""
        ...

    def taken_on(self, kind: str, run_id: str) -> list[int] | None:
        """The batches that a run took on, in the order of its mapped tasks; None if nobody knows any more."""
        ...

    def run_path(self, kind: str, run_id: str) -> str:
        """The page of a run."""
        ...

    def task_path(self, kind: str, run_id: str, task: str, index: int) -> str:
        """The page of a mapped task of a run, with its log."""
        ...


class Suites(Protocol):
    """What is derived from a template; handed in, because a page never judges."""

    def suite_hash(self, template: ImportTemplate) -> str:
        """The hash of the derived suite."""
        ...

    def derive(self, template: ImportTemplate) -> list[dict[str, Any]]:
        """The expectations: type, kwargs, and meta with the number of the column and the rule."""
        ...


class Judge(Protocol):
    """Says what an import would do, in another process."""

    def ask(self, case: Case, seconds: float, stop: threading.Event | None = None) -> Judgement:
        """The judgement. Raises NotJudged, or whatever keeps the file from being judged."""
        ...

    def warm(self) -> None:
        """Get ready for a file that will come soon."""
        ...

    def close(self) -> None:
        """End what is idle."""
        ...


class Connections:
    """Connections that are kept open between requests; a request has one for itself as long as it lasts."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue(IDLE_CONNECTIONS)

    @contextlib.contextmanager
    def one(self) -> Iterator[Connection]:
        """A connection. Raises TryAgain if the database is away."""
        connection = self._take()
        try:
            yield connection
        except TryAgain:  # the others may be as old as the server that is away
            connection.close()
            self.close()
            raise
        finally:
            self._give_back(connection)

    def _take(self) -> Connection:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        return self._connect()

    def _give_back(self, connection: Connection) -> None:
        if connection.closed or connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
            connection.close()
            return
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def close(self) -> None:
        """Close what is idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


@dataclass(frozen=True)
class Desk:
    """Everything a route works with."""

    connections: Connections
    guard: Guard
    settings: Settings
    suites: Suites
    engine: Engine | None
    kinds: Mapping[str, str]
    shelf: Shelf
    html: Environment
    judge: Judge | None = None


def desk_of(request: Request) -> Desk:
    """The desk that serves a request."""
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


def _connection(request: Request) -> Iterator[Connection]:
    with desk_of(request).connections.one() as connection:
        yield connection


DeskDep = Annotated[Desk, Depends(desk_of)]
ConnectionDep = Annotated[Connection, Depends(_connection)]
