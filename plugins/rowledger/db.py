"""The only module that talks to the driver: connections, transactions, named queries, migrations, driver errors.

Queries live in ``sql/<station>.sql``, each under a line ``-- name: <query>``, with bound parameters.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2.sql import Composable

from rowledger.errors import RecordRefused, SetupError, TryAgain


class Connection(psycopg2.extensions.connection):
    """A connection that knows where it leads, so that there can be another; on ``trial`` nothing it does is kept."""

    url: str
    trial = False


Cursor = psycopg2.extensions.cursor
Params = Mapping[str, Any]

MINIMUM_SERVER_VERSION = (
    180000  # COPY csv before PostgreSQL 18 stops at a bare \. line and loses what follows
)

# Pinned, so that a role or database with other defaults changes nothing. Client checks let the server notice a
# killed worker within a second instead of finishing its statement; a worker that is stopped between two statements of a
# transaction keeps its locks for a minute. Set by a statement: a pooler refuses them as options of the connection.
SESSION = {
    "search_path": "rowledger, pg_catalog, pg_temp",
    "datestyle": "ISO, YMD",
    "timezone": "UTC",
    "standard_conforming_strings": "on",
    "jit": "off",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "1s",
}
_SET_UP = "SELECT set_config(name, value, false) FROM unnest(%s, %s) AS setting (name, value)"

# Transactions that pass what they read to a person or a network have time.
_PATIENCE = "SET LOCAL idle_in_transaction_session_timeout = '600s'"

# Without a SQLSTATE, these are the driver's opinion of a call.
_OF_CALLS = (psycopg2.ProgrammingError, psycopg2.NotSupportedError, psycopg2.DataError, psycopg2.IntegrityError,
             psycopg2.InternalError)  # fmt: skip
# Classes and codes of SQLSTATE that time mends: connection, transaction rollback, resources, intervention, lock.
_TRANSIENT_CLASSES = ("08", "40", "53", "57", "58")
_TRANSIENT_CODES = ("55P03", "25006", "25P03")
_TROUBLE = {
    "53100": "The disk of the database server is full",
    "53200": "The database server is out of memory",
    "25006": "The database takes no changes at the moment, it is read-only",
    "55P03": "Somebody else holds a lock in the database for too long",
    "40P01": "The database broke off a deadlock",
    "57P03": "The database server is starting or stopping",
}


def connect(url: str, program: str = "rowledger") -> Connection:
    """Open a connection with pinned session settings. Raises TryAgain or SetupError.

    The server lists it as that program, with the number of its process.
    """
    with _translated():
        connection = psycopg2.connect(
            url,
            client_encoding="UTF8",
            connect_timeout=10,
            application_name=f"{program} {os.getpid()}",
            connection_factory=Connection,
            cursor_factory=psycopg2.extras.RealDictCursor,
        )
    connection.url = url
    if connection.server_version < MINIMUM_SERVER_VERSION:
        version = connection.server_version // 10000
        connection.close()
        raise SetupError(f"Rowledger needs PostgreSQL 18 or newer; this server is version {version}.")
    with transaction(connection) as cursor:
        cursor.execute(_SET_UP, (list(SESSION), list(SESSION.values())))
    return connection


@contextmanager
def transaction(connection: Connection) -> Iterator[Cursor]:
    """One transaction: commit at the end, roll back on any exception, driver errors translated.

    On a connection that is on trial it is a part of the trial, which is undone alone if it fails.
    """
    if connection.trial:
        with connection.cursor() as cursor, savepoint(cursor):
            yield cursor
    else:
        with _translated(), connection, connection.cursor() as cursor:
            yield cursor


@contextmanager
def trial(connection: Connection) -> Iterator[None]:
    """Everything done through the connection meanwhile is undone at the end; nobody else ever sees it."""
    connection.trial = True
    try:
        with _translated(), connection.cursor() as cursor:
            cursor.execute(_PATIENCE)
        yield
    finally:
        connection.trial = False
        if not connection.closed:
            connection.rollback()


@contextmanager
def undone(connection: Connection) -> Iterator[Cursor]:
    """A part of a trial that is undone at its own end: its locks are let go, its rows are gone."""
    assert connection.trial
    with _translated(), connection.cursor() as cursor:
        cursor.execute("SAVEPOINT undone")
        try:
            yield cursor
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT undone")
                cursor.execute("RELEASE SAVEPOINT undone")


@contextmanager
def savepoint(cursor: Cursor) -> Iterator[None]:
    """A part of a transaction that can fail alone; driver errors translated."""
    cursor.execute("SAVEPOINT part")
    try:
        with _translated():
            yield
    except BaseException:
        if not cursor.connection.closed:
            cursor.execute("ROLLBACK TO SAVEPOINT part")
        raise
    cursor.execute("RELEASE SAVEPOINT part")


def row(cursor: Cursor, query: str | Composable, params: Params | None = None) -> dict[str, Any] | None:
    """Run a query and return its first row or None."""
    cursor.execute(query, params)
    return cursor.fetchone()  # type: ignore[return-value]  # RealDictCursor gives dicts


def rows(cursor: Cursor, query: str | Composable, params: Params | None = None) -> list[dict[str, Any]]:
    """Run a query and return all its rows; only for results that are small by nature."""
    cursor.execute(query, params)
    return cursor.fetchall()  # type: ignore[return-value]


def stream(connection: Connection, query: str, params: Params) -> Generator[dict[str, Any]]:
    """Run a query through a server-side cursor: flat memory, whatever the number of rows."""
    around = contextlib.nullcontext() if connection.trial else connection
    with (
        _translated(),
        around,
        connection.cursor() as setting,
        connection.cursor("rowledger_stream") as cursor,
    ):
        setting.execute(_PATIENCE)
        cursor.itersize = 5000
        cursor.execute(query, params)
        yield from cursor


@functools.cache
def queries(station: str) -> dict[str, str]:
    """The named queries of ``sql/<station>.sql``."""
    text = resources.files("rowledger").joinpath("sql", f"{station}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\s*$", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def migrate(connection: Connection) -> list[str]:
    """Bring the schema up to date; returns the names of the migrations applied. Safe to run at once from two places."""
    applied = []
    with transaction(connection) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('rowledger migrate'))")
        cursor.execute("SELECT FROM pg_namespace WHERE nspname = 'rowledger'")
        # IF NOT EXISTS would ask for the right to make schemas also when it is there.
        if not cursor.fetchone():
            cursor.execute("CREATE SCHEMA rowledger")
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS rowledger.migration ("
            " name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {r["name"]: r["sha256"] for r in rows(cursor, "SELECT name, sha256 FROM rowledger.migration")}
        for name, text in _migrations():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if name not in done:
                cursor.execute(text)
                cursor.execute(
                    "INSERT INTO rowledger.migration (name, sha256) VALUES (%s, %s)", (name, digest)
                )
                applied.append(name)
            elif done[name] != digest:
                raise SetupError(f"Migration {name} was changed after it was applied to this database.")
    return applied


def _migrations() -> list[tuple[str, str]]:
    folder = resources.files("rowledger").joinpath("sql", "migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name, folder.joinpath(name).read_text(encoding="utf-8")) for name in names]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise _translate(error) from None  # whoever logs this must not find the driver's text, it has values


def _translate(error: psycopg2.Error) -> Exception:
    """Tell transient, record-caused and lasting errors apart, by class and name, never by text."""
    state = error.pgcode
    if state is None:
        # No answer from a server: connection refused, lost or closed; in the middle of an answer that is a DatabaseError
        # and none of its subclasses.
        if isinstance(error, _OF_CALLS):
            return SetupError(f"The database driver refused the call ({type(error).__name__}).")
        return TryAgain("The database cannot be reached, takes no more connections, or closed this one.")
    if state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_CODES:
        return TryAgain(f"{_TROUBLE.get(state, 'The database is busy or not available')} (SQLSTATE {state}).")
    if state[:2] in ("22", "23"):
        return RecordRefused(state, error.diag.constraint_name, error.diag.column_name)
    if state == "42P01":
        return SetupError("The database has no Rowledger tables yet, or older ones; run: rowledger migrate")
    return SetupError(f"The database refused a statement (SQLSTATE {state}, {error.diag.message_primary}).")
