"""What is wrong with the surroundings lets a batch wait, with a plain reason; it goes on once it is cured."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from rowledger import batches, db, ledger, pipeline, uploads
from rowledger.db import Connection
from rowledger.errors import FileError, SetupError, TryAgain
from rowledger.model import Batch
from rowledger.settings import Settings

Submit = Callable[..., int]
Cure = Callable[[], object]
HEADER = "Customer number,Email,Last name,Country\n"
CONTACTS = HEADER + "".join(
    f"C{n},{'nobody' if n % 50 == 0 else f'c{n}@example.com'},Name {n},DE\n" for n in range(1, 401)
)
NOBODY = 65534


@pytest.fixture
def worker(connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> pipeline.Worker:
    """Chunks of a hundred records, two lanes, and a second try at most."""
    monkeypatch.setattr(pipeline, "CHUNK_TRIES", 2)
    return pipeline.Worker(connection, replace(settings, validate_chunk=100, load_chunk=100), "tester")


def waits(worker: pipeline.Worker, seqno: int, connection: Connection) -> str:
    """Why the batch waits after its worker has given up."""
    with pytest.raises(TryAgain):
        pipeline.work(worker, seqno)
    batch = batches.get(connection, seqno)
    assert batch.status == "waiting"
    assert batch.waits_because
    return batch.waits_because


def goes_on(worker: pipeline.Worker, seqno: int) -> Batch:
    """Work it off, now that it is cured, as if nothing had been."""
    done = pipeline.work(worker, seqno)
    assert (done.succeeded, done.waits_because, done.error_message) == (True, None, None)
    assert (done.counts["created"], done.counts["rejected"]) == (392, 8)
    assert [check for check in ledger.check(worker.connection) if check["violations"]] == []
    return done


# Disks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """A file system of its own, which somebody can make larger."""

    path: Path

    def resize(self, kilobytes: int) -> None:
        _mount("-o", f"remount,size={kilobytes}k", str(self.path))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A small one, where every user may come."""
    path = Path(tempfile.mkdtemp(prefix="disk-"))
    path.chmod(0o755)
    try:
        _mount("-t", "tmpfs", "-o", "size=200k,mode=777", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError):
        path.rmdir()
        pytest.skip("only root can make a disk")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


def test_an_upload_to_a_full_disk_is_refused_and_leaves_nothing(disk: Disk, tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_bytes(os.urandom(300_000))
    with pytest.raises(SetupError, match=r"The upload could not be kept in .* \(No space left on device\)"):
        uploads.keep_file(file, disk.path / "uploads")
    assert [path for path in disk.path.rglob("*") if path.is_file()] == []
    disk.resize(2000)
    assert Path(uploads.keep_file(file, disk.path / "uploads").address).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("kilobytes", "what"),
    [(1000, "its text"), (4000, "its scratch database"), (7000, "its scratch database, late")],
)
def test_a_full_disk_of_the_worker(
    kilobytes: int, what: str, disk: Disk, submit: Submit, worker: pipeline.Worker, connection: Connection
) -> None:
    lines = [f"C{n},c{n}@example.com,{os.urandom(30).hex()},DE\n" for n in range(40_000)]
    seqno = submit(HEADER + "".join(lines))
    here = replace(worker, settings=replace(worker.settings, home=disk.path, validate_chunk=50_000))
    disk.resize(kilobytes)
    assert waits(here, seqno, connection) in (
        "The worker cannot use its disk: No space left on device.",
        f"The worker cannot use its disk: No space left on device ({disk.path}).",
    )
    assert not list((disk.path / "scratch").iterdir())
    disk.resize(50_000)
    assert pipeline.work(here, seqno).counts["created"] == 40_000


def test_of_the_disk_only_the_trouble_is_told_and_not_what_the_library_advises() -> None:
    said = (
        "IO Error: Could not write file: No space left on device\n\nPossible solutions:\n* Reducing: threads"
    )
    with (
        pytest.raises(TryAgain, match=r"^The worker cannot use its disk: No space left on device\.$"),
        pipeline._on_disk(),
    ):
        raise duckdb.IOException(said)


def test_a_full_disk_of_the_database_while_records_are_staged(
    disk: Disk, submit: Submit, worker: pipeline.Worker, connection: Connection, server: Any, database_url: str
) -> None:  # fmt: skip
    if server.system_user:
        shutil.chown(disk.path, server.system_user)
    database = connection.info.dbname
    assert pipeline.work(
        worker, submit(HEADER + "K0,k0@example.com,Zero,DE\n")
    ).succeeded  # the history has its place
    with _administrator(server) as execute:
        execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
        try:
            execute(f"ALTER DATABASE {database} SET default_tablespace = small")
            with contextlib.closing(db.connect(database_url)) as fresh:
                lines = [f"C{n},c{n}@example.com,{os.urandom(30).hex()},DE\n" for n in range(4_000)]
                seqno = submit(HEADER + "".join(lines))
                here = replace(worker, connection=fresh)
                reason = "The disk of the database server is full (SQLSTATE 53100)."
                assert waits(here, seqno, connection) == reason
                assert 0 < batches.get(connection, seqno).validated_records < 4_000
                disk.resize(50_000)
                assert pipeline.work(here, seqno).counts["created"] == 4_000
        finally:
            execute(f"ALTER DATABASE {database} RESET default_tablespace")
            execute("DROP TABLESPACE small")  # all that was in it went with the batch


@contextlib.contextmanager
def _administrator(server: Any) -> Iterator[Callable[[str], None]]:
    with contextlib.closing(psycopg2.connect(server.get_uri("postgres"))) as connection:
        connection.autocommit = True
        yield connection.cursor().execute


def test_an_uploaded_file_that_may_not_be_read(
    submit: Submit, worker: pipeline.Worker, connection: Connection, tmp_path: Path
) -> None:
    pipeline.work(worker, submit(HEADER))  # whatever is imported on the way
    seqno = submit(CONTACTS)
    file = Path(batches.get(connection, seqno).file_path)
    file.chmod(0)
    with _as_nobody(tmp_path):
        reason = waits(worker, seqno, connection)
        assert reason == f"The worker cannot use its disk: Permission denied ({file})."
    file.chmod(0o600)
    goes_on(worker, seqno)


@contextlib.contextmanager
def _as_nobody(folder: Path) -> Iterator[None]:
    """Root may read everything: let the files of this thread be opened by somebody else, who may come here."""
    if os.geteuid() != 0:
        yield
        return
    ways = [folder, *folder.parents]
    modes = [way.stat().st_mode for way in ways]
    for way, mode in zip(ways, modes, strict=True):
        way.chmod(mode | 0o777 if way == folder else mode | 0o011)
    for inside in folder.rglob("*"):
        if inside.is_dir():
            inside.chmod(0o777)
    setfsuid = ctypes.CDLL(None).setfsuid
    setfsuid(NOBODY)
    try:
        yield
    finally:
        setfsuid(0)
        for way, mode in zip(ways, modes, strict=True):
            way.chmod(mode)


def test_a_file_that_is_gone_fails_its_batch_which_is_opened_again_when_the_file_is_back(
    submit: Submit, worker: pipeline.Worker, connection: Connection
) -> None:
    seqno = submit(CONTACTS)
    file = Path(batches.get(connection, seqno).file_path)
    elsewhere = file.rename(file.with_suffix(".gone"))
    with pytest.raises(FileError, match="The uploaded file is not there any more"):
        pipeline.work(worker, seqno)
    assert batches.get(connection, seqno).error_rule == "file_missing"
    elsewhere.rename(file)
    goes_on(worker, seqno)


def test_a_disk_of_uploads_that_is_not_there_fails_no_batch(
    submit: Submit, worker: pipeline.Worker, connection: Connection
) -> None:
    seqno = submit(CONTACTS)
    folder = worker.settings.uploads
    elsewhere = folder.rename(folder.with_name("not mounted"))
    assert "No such file or directory" in waits(worker, seqno, connection)
    elsewhere.rename(folder)
    goes_on(worker, seqno)


# The database ---------------------------------------------------------------------------------------------------


def test_a_read_only_database(
    submit: Submit, worker: pipeline.Worker, connection: Connection, server: Any, database_url: str
) -> None:
    seqno = submit(CONTACTS)
    pipeline.validate(worker, seqno)
    before = batches.get(connection, seqno)
    with _administrator(server) as execute:
        execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on")
    sentence = "The database takes no changes at the moment, it is read-only"
    with contextlib.closing(db.connect(database_url)) as fresh:
        for step in (pipeline.validate, pipeline.load):
            with contextlib.suppress(TryAgain):
                step(replace(worker, connection=fresh), seqno)
        with pytest.raises(TryAgain, match=sentence):
            pipeline.load(replace(worker, connection=fresh), seqno)
        with pytest.raises(TryAgain, match=sentence):
            batches.reserve(fresh, "contact", "run", 10, 60)
        assert batches.get(fresh, seqno) == before  # which a database that takes no changes cannot be told
    with _administrator(server) as execute:
        execute(f"ALTER DATABASE {connection.info.dbname} RESET default_transaction_read_only")
    goes_on(worker, seqno)


@pytest.fixture
def guest(server: Any, database_url: str) -> Iterator[str]:
    """The address for a role that may have one connection at a time."""
    with _administrator(server) as execute:
        execute("CREATE ROLE guest LOGIN CONNECTION LIMIT 1")
        execute("GRANT postgres TO guest")
        yield psycopg2.extensions.make_dsn(database_url, user="guest")
        with contextlib.closing(db.connect(database_url)) as owner, db.transaction(owner) as cursor:
            cursor.execute("DROP OWNED BY guest")  # volumes that it has opened
        execute("DROP ROLE guest")


def test_connections_that_run_out(
    submit: Submit, worker: pipeline.Worker, connection: Connection, guest: str
) -> None:
    seqno = submit(CONTACTS)
    sentence = "takes no more connections"
    with contextlib.closing(db.connect(guest)) as only:
        with pytest.raises(TryAgain, match=sentence):
            db.connect(guest)
        here = replace(worker, connection=only)
        assert sentence in waits(here, seqno, connection)  # the second lane has no connection
    goes_on(worker, seqno)


@pytest.mark.parametrize("table", ["import_record", "contact"])
def test_a_lock_that_somebody_else_holds_for_minutes(
    table: str, submit: Submit, worker: pipeline.Worker, connection: Connection, database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seqno = submit(CONTACTS)
    monkeypatch.setitem(db.SESSION, "lock_timeout", "100ms")
    with (
        contextlib.closing(db.connect(database_url)) as impatient,
        contextlib.closing(psycopg2.connect(database_url)) as somebody,
    ):
        somebody.cursor().execute(f"LOCK TABLE rowledger.{table} IN ACCESS EXCLUSIVE MODE")
        reason = waits(replace(worker, connection=impatient), seqno, connection)
        assert reason == "Somebody else holds a lock in the database for too long (SQLSTATE 55P03)."
        somebody.rollback()
        goes_on(replace(worker, connection=impatient), seqno)


def test_a_short_trouble_is_outlasted(
    submit: Submit, worker: pipeline.Worker, connection: Connection, database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The first lock is let go while the worker tries again: nobody hears of it."""
    monkeypatch.setitem(db.SESSION, "lock_timeout", "100ms")
    seqno = submit(CONTACTS)
    with (
        contextlib.closing(db.connect(database_url)) as impatient,
        contextlib.closing(psycopg2.connect(database_url)) as somebody,
    ):
        somebody.cursor().execute("LOCK TABLE rowledger.contact IN ACCESS EXCLUSIVE MODE")
        letting_go = threading.Timer(0.25, somebody.rollback)
        letting_go.start()
        time.sleep(0.05)
        goes_on(replace(worker, connection=impatient), seqno)
        letting_go.join()
