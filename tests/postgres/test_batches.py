"""The life of a batch at the database: one upload, one worker, one clock."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rowledger import batches, db, erasure, loading, pipeline, suites, templates, uploads
from rowledger.db import Connection, rows, transaction
from rowledger.errors import DuplicateUpload, Fenced, SetupError, TryAgain
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.stores import Store

Submit = Callable[..., int]
CONTACTS = "External ID,Email,Last name\nC1,c1@example.org,Name\nC2,no address,Name\n"


@pytest.fixture
def other(database_url: str) -> Iterator[Connection]:
    with contextlib.closing(db.connect(database_url)) as opened:
        yield opened


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    return pipeline.Worker(connection, settings, "tester")


# Upload ----------------------------------------------------------------------------------------------------------


def test_of_two_uploads_of_one_file_at_once_the_second_is_told_of_the_first(
    submit: Submit, connection: Connection, other: Connection, settings: Settings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Or the second would wait for the first to enter the template.
    submit(CONTACTS.replace("Name", "Another"))
    (tmp_path / "file.csv").write_text(CONTACTS)
    upload = uploads.keep_file(tmp_path / "file.csv", settings.uploads)
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    note, both = batches.note, threading.Barrier(2)

    def together(*arguments: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(3)  # both are here at once, unless one waits for the other before it looks
        note(*arguments)

    monkeypatch.setattr(batches, "note", together)

    def register(one: Connection) -> int | DuplicateUpload:
        try:
            return batches.register(
                one, upload, template, suites.suite_hash(template), "DEMO", by="x", through="api"
            )
        except DuplicateUpload as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        came = list(pool.map(register, (connection, other)))
    (refused,) = [one for one in came if isinstance(one, DuplicateUpload)]
    assert [refused.seqno] == [one for one in came if isinstance(one, int)]


@pytest.mark.parametrize("stored", [False, True], ids=["folder", "store"])
def test_an_upload_whose_file_is_let_go_at_that_moment_is_told_to_come_again(
    stored: bool, connection: Connection, other: Connection, settings: Settings, tmp_path: Path
) -> None:
    place: Path | Store = settings.uploads
    if stored:
        from rowledger.airflow.storage import ObjectStore

        folder = tmp_path / "objects"
        (folder / hashlib.sha256(CONTACTS.encode()).hexdigest()[:2]).mkdir(parents=True)
        place = ObjectStore(folder.as_uri(), settings.uploads)
    (tmp_path / "file.csv").write_text(CONTACTS)
    upload = uploads.keep_file(tmp_path / "file.csv", place)
    template = templates.find_template(settings.templates, "contacts", loading.kinds())

    def register() -> int:
        return batches.register(other, upload, template, "suite", "DEMO", by="x", through="api", again=True)

    with ThreadPoolExecutor(1) as pool:
        with transaction(connection) as cursor:
            cursor.execute(db.queries("batches")["alone_with_file"], {"sha256": upload.sha256})
            registering = pool.submit(register)
            query = (
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted) AS waits"
            )
            while not rows(cursor, query)[0]["waits"]:
                assert not registering.done()
            assert uploads.remove(place, upload.sha256)
        with pytest.raises(TryAgain, match=r'"file\.csv" was let go at this moment; upload it again'):
            registering.result(60)
    assert batches.listed(connection) == []
    uploads.keep_file(tmp_path / "file.csv", place)
    assert register() == batches.listed(connection)[0].seqno


def test_the_file_of_somebody_erased_stays_if_it_is_uploaded_again_meanwhile(
    worker: pipeline.Worker, submit: Submit, other: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    pipeline.work(worker, submit(CONTACTS))
    (tmp_path / "file.csv").write_text(CONTACTS)
    template = templates.find_template(worker.settings.templates, "contacts", loading.kinds())
    seqnos = []

    def uploaded_again(cursor: db.Cursor, query: str, *asked: Any) -> list[dict[str, Any]]:
        found = rows(cursor, query, *asked)
        if query == db.queries("erasure")["unneeded_files"]:
            assert len(found) == 1
            upload = uploads.keep_file(tmp_path / "file.csv", worker.settings.uploads)
            seqnos.append(
                batches.register(other, upload, template, "suite", "DEMO", by="x", through="api", again=True)
            )
        return found

    monkeypatch.setattr(erasure, "rows", uploaded_again)
    erasure.erase(worker, "DEMO", "C1")
    (seqno,) = seqnos
    assert pipeline.work(worker, seqno).succeeded


# Clock -----------------------------------------------------------------------------------------------------------


def test_leases_go_by_the_clock_of_the_database(submit: Submit, connection: Connection) -> None:
    """Its clock is a day ahead of that of this process; another process may be wrong by as much."""
    seqno = submit(CONTACTS)

    def ahead_by(interval: str) -> None:
        with db.transaction(connection) as cursor:  # found before pg_catalog's
            cursor.execute(
                "CREATE OR REPLACE FUNCTION rowledger.now() RETURNS timestamptz LANGUAGE sql STABLE "
                "RETURN pg_catalog.now() + %s::text::interval",
                (interval,),
            )

    def lease() -> int:
        with db.transaction(connection) as cursor:
            found = db.row(
                cursor, "SELECT extract(epoch FROM leased_until - now()) AS seconds FROM import_batch"
            )
        assert found
        return round(found["seconds"] / 60)

    ahead_by("1 day")
    assert batches.reserve(connection, "contact", "one", 10, 600) == [seqno]
    leases = [lease()]
    batch = batches.claim(connection, seqno, "tester", 1200)
    leases.append(lease())
    with db.transaction(connection) as cursor:
        batches.hold(cursor, batch, 1800)
    leases.append(lease())
    with db.transaction(connection) as cursor:
        batches.count_loaded(cursor, batch, loading.Counter(), 2400)
    leases.append(lease())
    batches.ahead(connection, batches.get(connection, seqno), 3000)
    assert [*leases, lease()] == [10, 20, 30, 40, 50]
    assert batches.reserve(connection, "contact", "two", 10, 60) == []
    ahead_by("1 day 49 minutes")
    assert batches.reserve(connection, "contact", "two", 10, 60) == []
    ahead_by("1 day 51 minutes")
    assert batches.reserve(connection, "contact", "two", 10, 60) == [seqno]


# Trouble ---------------------------------------------------------------------------------------------------------


def broken_off(connection: Connection, sqlstate: str) -> None:
    with db.transaction(connection) as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '{sqlstate}'; END $$")


@pytest.mark.parametrize("sqlstate", ["40P01", "40001", "55P03", "57014", "53100"])
def test_a_chunk_that_the_database_broke_off_is_done_again_up_to_five_times(
    sqlstate: str, worker: pipeline.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(pipeline.time, "sleep", waits.append)
    tries = 0

    def busy(until: int) -> int:
        nonlocal tries
        tries += 1
        if tries < until:
            broken_off(worker.connection, sqlstate)
        return tries

    assert pipeline.again(worker, lambda: busy(until=5)) == 5
    tries = 0
    with pytest.raises(TryAgain, match=sqlstate):
        pipeline.again(worker, lambda: busy(until=99))
    assert tries == 5
    assert sum(waits[:4]) < 10
    assert waits[3] > waits[0]


def test_what_is_lost_with_its_connection_is_not_done_again(worker: pipeline.Worker) -> None:
    tries = []

    def lost() -> None:
        tries.append(1)
        with db.transaction(worker.connection) as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(TryAgain):
        pipeline.again(worker, lost)
    assert tries == [1]


def test_a_worker_that_meets_trouble_after_a_take_over_leaves_the_batch_alone(
    submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    seqno = submit(CONTACTS)
    stale = worker.claim(seqno, "validate")
    batches.claim(other, seqno, "another", 60)
    with pytest.raises(Fenced, match="was taken over by another worker"), pipeline._ending(worker, stale):
        raise TryAgain
    batch = batches.get(other, seqno)
    assert (batch.status, batch.waits_because) == ("in_progress", None)


def test_a_worker_that_is_killed_lets_go_of_what_it_holds_while_its_statement_runs(
    database_url: str, connection: Connection
) -> None:
    script = """if True:
        import sys
        from rowledger import db
        with db.transaction(db.connect(sys.argv[1])) as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(7)")
            print("has it", flush=True)
            cursor.execute("SELECT pg_sleep(25)")
    """
    process = subprocess.Popen([sys.executable, "-c", script, database_url], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"has it\n"
    time.sleep(0.2)  # until the statement runs
    process.send_signal(signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    with db.transaction(connection) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(7)")
    assert time.monotonic() - began < 10


def test_values_that_the_database_refuses_are_rejected_alone(
    submit: Submit, work: Callable[[int], Batch], connection: Connection, became: Callable[[int], list[Any]]
) -> None:
    with db.transaction(connection) as cursor:
        cursor.execute("ALTER TABLE contact ADD CONSTRAINT house_rule CHECK (last_name <> 'Bad')")
    names = ["Good", "Bad", "Good", "Good", "Good", "Bad", "Good"]
    lines = [f"K{place},k{place}@example.org,{name}" for place, name in enumerate(names)]
    batch = work(submit("\n".join(["External ID,Email,Last name", *lines])))
    assert batch.succeeded, batch.error_message
    assert became(batch.seqno) == [
        (place, "rejected", "refused_by_database") if name == "Bad" else (place, "created")
        for place, name in enumerate(names, 1)
    ]


# Steps -----------------------------------------------------------------------------------------------------------


def test_a_batch_is_not_closed_before_it_is_loaded_nor_loaded_before_it_is_validated(
    submit: Submit, worker: pipeline.Worker
) -> None:
    seqno = submit(CONTACTS)
    with pytest.raises(SetupError, match="is not validated yet"):
        pipeline.load(worker, seqno)
    pipeline.validate(worker, seqno)
    with pytest.raises(SetupError, match="is not loaded yet"):
        pipeline.close(worker, seqno)
    pipeline.load(worker, seqno)
    assert pipeline.close(worker, seqno).succeeded


def test_whoever_comes_to_a_batch_that_is_done_changes_nothing(
    submit: Submit, work: Callable[[int], Batch], connection: Connection
) -> None:
    done = work(submit(CONTACTS))
    for step in ("validate", "load", "close"):
        assert batches.claim(connection, done.seqno, "late", 60, step=step) == done
