"""Everything that is done, done by a role that owns nothing but its schemas, as on a managed PostgreSQL.

docs/scaling.md says which rights it has; the statements are those of this page.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import (
    batches,
    control,
    db,
    demo,
    dry_run,
    housekeeping,
    ledger,
    loading,
    pipeline,
    reference,
    replay,
    reruns,
    roll_back,
    templates,
    timers,
    uploads,
)
from rowledger.db import Connection, transaction
from rowledger.errors import FileError, SetupError
from rowledger.model import BatchStatus
from rowledger.retention import Retention
from rowledger.settings import Settings
from rowledger.suites import suite_hash

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
NAME = "least_rights"


def statements(heading: str) -> list[str]:
    """The SQL under a heading of the page, for a database and a role of other names."""
    block = re.search(rf"^#+ {heading}\n.*?^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block
    ours = re.sub(r"\browledger\b(?!_)", NAME, block[1])
    return [one for one in ours.split(";\n") if one.strip()]


def as_administrator(server: Any, database: str, *asked: str) -> None:
    with contextlib.closing(psycopg2.connect(server.get_uri(database))) as connection:
        connection.autocommit = True
        for statement in asked:
            connection.cursor().execute(statement)


@pytest.fixture(scope="module")
def url(server: Any) -> Iterator[str]:
    """The address of a database of somebody else, in which the role may do what the page says."""
    as_administrator(server, "postgres", f"CREATE DATABASE {NAME} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        as_administrator(server, NAME, *statements("What the role needs"))
        yield server.get_uri(NAME).replace("postgres:@", f"{NAME}@", 1)
    finally:
        as_administrator(
            server, "postgres", f"DROP DATABASE {NAME} WITH (FORCE)", f"DROP ROLE IF EXISTS {NAME}"
        )


@pytest.fixture(scope="module")
def connection(server: Any, url: str) -> Iterator[Connection]:
    """Connected when the tables are there and the right to make schemas is gone again."""
    with contextlib.closing(db.connect(url)) as opened:
        db.migrate(opened)
        as_administrator(server, NAME, *statements("After the first migration"))
        yield opened


@pytest.fixture(scope="module")
def worker(connection: Connection, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Worker:
    home = tmp_path_factory.mktemp("home")
    return pipeline.Worker(
        connection, Settings(home, ROOT / "include" / "templates", load_chunk=500), "tester"
    )


def one(connection: Connection, query: str) -> Any:
    with transaction(connection) as cursor:
        cursor.execute(query)
        return next(iter(cursor.fetchone().values()))  # type: ignore[union-attr]


def test_the_role_owns_nothing_but_two_schemas_and_what_is_in_them(connection: Connection) -> None:
    assert one(connection, "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
                           " FROM pg_roles WHERE rolname = current_user") is False  # fmt: skip
    assert one(connection, "SELECT string_agg(nspname, ' ' ORDER BY 1) FROM pg_namespace"
                           " WHERE nspowner = current_user::regrole") == "rowledger rowledger_staging"  # fmt: skip
    assert one(connection, "SELECT count(*) FROM pg_database WHERE datdba = current_user::regrole") == 0
    assert one(connection, "SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole") == 0
    assert one(connection, "SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql'") == 0
    with pytest.raises(SetupError, match="42501"), transaction(connection) as cursor:
        cursor.execute("CREATE SCHEMA another")


def test_migrating_once_more_needs_no_more_rights(connection: Connection) -> None:
    assert db.migrate(connection) == []


def test_every_sample_is_imported_reprocessed_rerun_and_rolled_back(worker: pipeline.Worker) -> None:
    connection, settings = worker.connection, worker.settings
    reference.load(connection, reference.read(ROOT / "include" / "reference" / "demo.yml"))
    kinds = set()
    for sample in demo.samples():
        seqno = demo._submit(connection, settings, sample)
        assert seqno in batches.reserve(
            connection, sample.kind, f"run of {seqno}", 10, settings.lease_seconds
        )
        with contextlib.suppress(FileError):  # some samples are wrong as a whole
            pipeline.work(worker, seqno)
        done = batches.get(connection, seqno)
        assert done.status is BatchStatus.EXECUTED
        kinds |= {done.kind} if done.processed else set()
        if done.processed and done.counts["rejected"]:
            template = pipeline.template_of(connection, done)
            reruns.rerun(
                connection,
                settings,
                done,
                template,
                suite_hash(template),
                by="tester",
                through="command line",
            )
            reruns.reprocess(
                connection, done, template, suite_hash(template), by="tester", through="command line"
            )
    assert kinds == set(loading.kinds())
    for seqno in batches.waiting(connection):
        with contextlib.suppress(FileError):
            pipeline.work(worker, seqno)
    for kind in sorted(loading.kinds()):
        seqno = next(b.seqno for b in batches.listed(connection, kind, limit=1000) if b.processed)
        roll_back.ask(connection, seqno, by="tester", why="wrong file")
        assert roll_back.work(worker, seqno).in_words
    assert [check for check in ledger.check(connection) if check["violations"]] == []


def test_timers_replays_dry_runs_and_control_requests_need_no_more(
    worker: pipeline.Worker, tmp_path: Path
) -> None:
    connection, settings = worker.connection, worker.settings
    timers.give(connection, upto=date(2030, 1, 1))
    replay.replay(worker)
    file = tmp_path / "contacts.csv"
    file.write_text("Customer number,Email,Last name,Country\nL1,l1@example.com,L,DE\n")
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    with dry_run.dry_run(worker, file, template, suite_hash(template), "DEMO") as trial:
        assert trial.batch.counts["created"] == 1
    seqno = batches.register(connection, uploads.keep_file(file, settings.uploads), template, suite_hash(template),
                             "DEMO", by="tester", through="command line")  # fmt: skip
    control.pause(connection, seqno, by="tester")
    control.resume(connection, seqno, by="tester")
    pipeline.validate(worker, seqno)
    control.cancel(connection, seqno, by="tester")
    assert batches.get(connection, seqno).status is BatchStatus.CANCELLED
    assert [check for check in ledger.check(connection) if check["violations"]] == []


def test_a_volume_of_the_ledger_is_dropped_by_who_made_it(worker: pipeline.Worker, tmp_path: Path) -> None:
    connection, settings = worker.connection, worker.settings
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    for n in range(2):  # each in a span of its own
        with transaction(connection) as cursor:
            cursor.execute("SELECT setval('import_batch_seqno_seq', max(end_seqno)) FROM ledger_volume")
        (file := tmp_path / "contacts.csv").write_text(f"Customer number,Last name\nV{n},V\n")
        upload = uploads.keep_file(file, settings.uploads)
        seqno = batches.register(
            connection, upload, template, suite_hash(template), "DEMO", by="tester", through="command line"
        )
        pipeline.work(worker, seqno)
    with transaction(connection) as cursor:
        cursor.execute("ALTER TABLE import_batch DISABLE TRIGGER import_batch_close")
        cursor.execute(
            "UPDATE import_batch SET uploaded_at = uploaded_at - past, processed_at = processed_at - past"
            " FROM make_interval(days => 40) AS past"
        )
        cursor.execute("ALTER TABLE import_batch ENABLE TRIGGER import_batch_close")
        cursor.execute("UPDATE import_record SET recorded_at = recorded_at - make_interval(days => 40)")
    removed = housekeeping.clean(worker, Retention.model_validate({"others": {"ledger": 30}}))
    assert {one.what for one in removed} >= {"volumes of the ledger", "records of the ledger"}
    assert [check for check in ledger.check(connection) if check["violations"]] == []


def test_the_session_of_a_silent_worker_can_be_ended(
    worker: pipeline.Worker, url: str, tmp_path: Path
) -> None:
    connection, settings = worker.connection, worker.settings
    file = tmp_path / "contacts.csv"
    file.write_text("Customer number,Email,Last name,Country\nL2,l2@example.com,L,DE\n")
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    seqno = batches.register(connection, uploads.keep_file(file, settings.uploads), template, suite_hash(template),
                             "DEMO", by="tester", through="command line")  # fmt: skip
    with contextlib.closing(db.connect(url)) as silent, silent.cursor() as held:
        held.execute("SELECT pg_advisory_xact_lock(hashtextextended('rowledger batch', %s))", (seqno,))
        with transaction(connection) as cursor:
            cursor.execute("SELECT pg_sleep(0.1)")
            batches.end_silent(cursor, 0, seqno)
        with pytest.raises(psycopg2.OperationalError):
            held.execute("SELECT 1")
    pipeline.work(worker, seqno)
    assert batches.get(connection, seqno).processed
