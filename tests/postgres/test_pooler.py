"""Behind a pooler that hands out whole sessions: pgbouncer."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from rowledger import db, ledger, pipeline, roll_back
from rowledger.airflow import local
from rowledger.settings import Settings

INSTALL = "This test needs pgbouncer: `apt-get install pgbouncer`, or another one that brings `pgbouncer`."
CONFIGURATION = """\
[databases]
* = host={host} user=postgres
[pgbouncer]
pool_mode = session
auth_type = any
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
"""


@pytest.fixture
def pooled_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The address of the same database, through a pooler."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.fail(INSTALL, pytrace=False)
    parts, port = parse_dsn(database_url), local.free_port()
    owner = Path(parts["host"]).stat().st_uid  # may pass through to the socket; pgbouncer refuses to be root
    configuration = tmp_path / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(host=parts["host"], port=port))
    with (
        configuration.open() as given,
        (tmp_path / "pgbouncer.log").open("wb") as log,
        subprocess.Popen([program, f"/dev/fd/{given.fileno()}"], pass_fds=[given.fileno()],
                         stdout=log, stderr=log, user=owner if os.geteuid() == 0 else None) as pooler,
    ):  # fmt: skip
        url = f"postgresql://postgres@127.0.0.1:{port}/{parts['dbname']}"
        try:
            _wait_for(url, pooler, tmp_path / "pgbouncer.log")
            yield url
        finally:
            pooler.terminate()


def _wait_for(url: str, pooler: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg2.connect(url, sslmode="disable").close()
        except psycopg2.OperationalError:
            assert pooler.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return


def test_a_batch_is_worked_off_and_rolled_back_through_a_pooler(
    pooled_url: str, submit: Callable[..., int], settings: Settings
) -> None:
    seqno = submit(
        "Customer number,Email,Last name,Country\n" + "".join(f"P{n},,Name,DE\n" for n in range(50))
    )
    with contextlib.closing(db.connect(pooled_url)) as connection:
        with db.transaction(connection) as cursor:
            cursor.execute("SHOW lock_timeout")
            assert cursor.fetchone() == {"lock_timeout": "30s"}
        worker = pipeline.Worker(connection, settings, "tester")
        pipeline.work(worker, seqno)
        roll_back.ask(connection, seqno, by="tester", why="wrong file")
        roll_back.work(worker, seqno)
        assert [check for check in ledger.check(connection) if check["violations"]] == []
        with db.transaction(connection) as cursor:
            cursor.execute("SELECT count(*) AS contacts FROM contact")
            assert cursor.fetchone() == {"contacts": 0}
