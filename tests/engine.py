"""One real Airflow on a throw-away PostgreSQL, spoken to by its REST API, for tests/airflow and for `make chaos`."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from rowledger import batches, db, ledger, loading, templates, uploads
from rowledger.airflow import local
from rowledger.db import Connection, rows, transaction
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.suites import suite_hash

HEADER = "Customer number,Email,Last name,Country\n"
LARGE = 24_000
CHUNK = 2_000  # small, so that a task of a few seconds has many chunks to be killed between
FINAL = ("success", "failed")
WAIT_SECONDS = 120
_numbers = itertools.count(1)


def contacts(prefix: str, count: int = LARGE) -> str:
    """Contacts of which every hundredth is wrong and every thousandth comes twice."""
    lines = [
        f"{prefix}{n - n % 1000 if n % 1000 == 1 else n},{prefix}{n}@example.com,Name {n},{'XX' if n % 100 == 0 else 'DE'}"
        for n in range(count)
    ]
    return HEADER + "\n".join(lines) + "\n"


@dataclass
class Engine:
    """The running Airflow, the server of its databases, and the Rowledger database its tasks write to."""

    api: local.Api
    place: local.Place
    settings: Settings
    folder: Path
    server: Any
    _opened: Connection | None = None

    @property
    def connection(self) -> Connection:
        """A connection of the tests, another one when the server was away."""
        if self._opened is None or self._opened.closed:
            assert self.settings.database_url
            self._opened = db.connect(self.settings.database_url)
        return self._opened

    def submit(self, content: str, template: str = "contacts", domain: str = "DEMO") -> int:
        path = self.folder / f"file_{next(_numbers)}.csv"
        path.write_text(content, encoding="utf-8")
        chosen = templates.find_template(self.settings.templates, template, loading.kinds())
        upload = uploads.keep_file(path, self.settings.uploads)
        return batches.register(self.connection, upload, chosen, suite_hash(chosen), domain,
                                by="tester", through="command line", again=True)  # fmt: skip

    def batch(self, seqno: int) -> Batch:
        return batches.get(self.connection, seqno)

    def ledger(self, seqno: int) -> list[dict[str, Any]]:
        return list(ledger.records(self.connection, seqno))

    def trigger(self, dag: str) -> str:
        return str(self.api.call("POST", f"/dags/{dag}/dagRuns", {"logical_date": None})["dag_run_id"])

    def run(self, dag: str) -> Run:
        return Run(self, dag, self.trigger(dag))

    def take_on(self, seqno: int) -> Run:
        """Trigger the DAG of a batch; whichever run takes it (the scheduled one may be faster) is the one."""
        before = self.batch(seqno)
        dag = f"{before.kind}_import"
        self.trigger(dag)
        self.until(lambda: self.batch(seqno).run_id != before.run_id)
        return Run(self, dag, str(self.batch(seqno).run_id), seqno)

    def work_off(self, seqno: int) -> Run:
        run = self.take_on(seqno)
        run.wait()
        return run

    def until(self, happened: Callable[[], Any], seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.1)

    def task_process(self) -> psutil.Process:
        """The task at work: a connection says in its name which process it belongs to.

        The one that has been at it for longest: a sensor of another DAG may look in meanwhile.
        """
        with transaction(self.connection) as cursor:
            names = rows(
                cursor,
                "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'rowledger %%' AND application_name <> %(own)s ORDER BY backend_start",
                {"own": f"rowledger {os.getpid()}"},
            )
        return psutil.Process(int(names[0]["application_name"].split()[1]))

    def processes(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if local._mark(p) == str(self.place.home)]


@dataclass(frozen=True)
class Run:
    """The DAG run that took a batch on."""

    engine: Engine
    dag: str
    run_id: str
    seqno: int = 0

    @property
    def _path(self) -> str:
        return f"/dags/{self.dag}/dagRuns/{self.run_id.replace('+', '%2B')}"

    def state(self) -> str:
        return str(self.engine.api.call("GET", self._path)["state"])

    def wait(self) -> str:
        self.engine.until(lambda: self.state() in FINAL)
        return self.state()

    def sense(self) -> dict[str, Any]:
        return self.instance("sense")

    def instance(self, task: str) -> dict[str, Any]:
        """A task that is not mapped, or that there was nothing to map over for."""
        return dict(self.engine.api.call("GET", f"{self._path}/taskInstances/{task}"))

    def task(self, step: str) -> dict[str, Any]:
        """The mapped task instance of the batch, found by what `sense` handed on."""
        seqnos = self.engine.api.call("GET", f"{self._path}/taskInstances/sense/xcomEntries/return_value")
        index = [seqno for seqno, _ in _as_list(seqnos["value"])].index(self.seqno)
        return dict(self.engine.api.call("GET", f"{self._path}/taskInstances/import_batch.{step}/{index}"))

    def whole_log(self, step: str) -> str:
        """All that the last try of a task logged, as text."""
        return "\n".join(str(line) for line in self._lines(step))

    def _lines(self, step: str) -> list[dict[str, Any]]:
        task = self.task(step)
        path = f"{self._path}/taskInstances/import_batch.{step}/logs/{task['try_number']}"
        answer = self.engine.api.call("GET", f"{path}?map_index={task['map_index']}&full_content=true")
        return list(answer["content"])

    def log(self, step: str) -> list[str]:
        """What a task itself logged, without Airflow's groups before and after."""
        events = [line["event"] for line in self._lines(step)]
        return events[_last(events, "::endgroup::", before="::group::Post Execute") + 1 :][
            : _own_length(events)
        ]

    def clear(self, step: str) -> None:
        """Clear a task of the batch and what follows it, as the button in the UI does."""
        index = self.task(step)["map_index"]
        self.engine.api.call("POST", f"/dags/{self.dag}/clearTaskInstances", {
            "dry_run": False, "dag_run_id": self.run_id, "task_ids": [[f"import_batch.{step}", index]],
            "include_downstream": True, "only_failed": False, "reset_dag_runs": True,
        })  # fmt: skip
        self.engine.until(lambda: self.state() not in FINAL)


def _as_list(value: Any) -> list[list[int]]:
    import json

    return json.loads(value) if isinstance(value, str) else list(value)


def _last(events: list[str], what: str, before: str) -> int:
    end = events.index(before)
    return max(place for place, event in enumerate(events[:end]) if event == what)


def _own_length(events: list[str]) -> int:
    start = _last(events, "::endgroup::", before="::group::Post Execute")
    return events.index("::group::Post Execute") - start - 1


@contextlib.contextmanager
def started(server: Any, folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Engine]:
    """A whole Airflow, its DAGs of imports unpaused, in two databases of the server, whose ``migrated`` has the tables.

    ``variables`` are more settings of Rowledger, as environment variables.
    """
    for statement in ("CREATE DATABASE airflow", "CREATE DATABASE worked_by_airflow TEMPLATE migrated"):
        execute(server.get_uri("postgres"), statement)
    url = server.get_uri("worked_by_airflow")
    settings = Settings(
        home=folder / "home", templates=local.ROOT / "include" / "templates",
        database_url=url, validate_chunk=CHUNK, load_chunk=CHUNK, feeds=folder / "feeds",
    )  # fmt: skip
    place = local.Place(folder / "airflow", folder / "logs", server.get_uri("airflow"), local.free_port())
    everything = {
        "AIRFLOW_CONN_ROWLEDGER": local.airflow_connection(url),
        "ROWLEDGER_HOME": str(settings.home),
        "ROWLEDGER_TEMPLATES": str(settings.templates),
        "ROWLEDGER_FEEDS": str(settings.feeds),
        "ROWLEDGER_APPROVAL_SECONDS": "20",
        "ROWLEDGER_VALIDATE_CHUNK": str(CHUNK),
        "ROWLEDGER_LOAD_CHUNK": str(CHUNK),
        **(variables or {}),
    }
    with local.running(place, everything) as api:
        running = Engine(api, place, settings, folder, server)
        for dag in (f"{kind}_import" for kind in loading.kinds()):
            running.until(lambda dag=dag: _known(api, dag))  # type: ignore[misc]
            api.call("PATCH", f"/dags/{dag}", {"is_paused": False})
        try:
            yield running
        finally:
            running.connection.close()


def _known(api: local.Api, dag: str) -> bool:
    with contextlib.suppress(local.ApiError):
        api.call("GET", f"/dags/{dag}")
        return True
    return False


def execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
