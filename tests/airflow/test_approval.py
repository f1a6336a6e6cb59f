"""The body of the task that puts batches before a person; no Airflow runs here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rowledger import batches, control
from rowledger.airflow import local
from rowledger.db import Connection, transaction
from rowledger.settings import Settings

ROOT = Path(__file__).parent.parent.parent
FILES = [f"Customer number,Email,Last name,Country\n{n},{n}@example.com,N,DE\n" for n in range(3)]
WRONG = "Customer number,Email\n1,1@example.com\n"
HELD = """
import json
from types import SimpleNamespace
from airflow.sdk.execution_time.context import set_current_context
from rowledger.airflow import approval
{first}
run = SimpleNamespace(dag_id="import_approval", run_id="run", triggering_user_name=None)
with set_current_context({{"dag_run": run, "run_id": "run"}}):
    print(json.dumps(approval.held()))
"""
SLOW = """
from rowledger import control
from rowledger.db import transaction
from rowledger.feeds import unusual
trial = approval._trial
def slow(mine, batch):
    assert unusual.take_up(mine.connection, 900, 10) == [], "another task would ask, too"
    said = trial(mine, batch)
    with transaction(mine.connection) as cursor:
        cursor.execute("UPDATE feed_hold SET asked_until = now()")
    if batch.seqno == {first}:
        control.cancel(mine.connection, {second}, by="anna")
    return said
approval._trial = slow
"""


@pytest.fixture
def hold(connection: Connection, submit: Callable[..., int]) -> Callable[..., list[int]]:
    """Makes batches that a feed has held."""

    def hold(*files: str) -> list[int]:
        seqnos = [submit(file) for file in files]
        with transaction(connection) as cursor:
            cursor.execute("INSERT INTO feed VALUES ('agency', 'contact', 'DEMO')")
            for seqno in seqnos:
                cursor.execute(
                    "INSERT INTO feed_hold (seqno, feed, why) VALUES (%s, 'agency', 'unusual')", (seqno,)
                )
        for seqno in seqnos:
            control.pause(connection, seqno, by="feed agency")
        return seqnos

    return hold


def held(home: Path, settings: Settings, first: str = "") -> dict[int, str]:
    """One try of the task, in a process of its own: by batch what a person is shown."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "config"), str(ROOT / "plugins")]),
        "AIRFLOW_CONN_ROWLEDGER": local.airflow_connection(str(settings.database_url)),
        "ROWLEDGER_HOME": str(settings.home),
    }
    done = subprocess.run(
        [sys.executable, "-c", HELD.format(first=first)], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return {one["seqno"]: one["body"] for one in found}


def test_a_batch_that_cannot_be_tried_out_is_asked_about_and_keeps_no_other_from_it(
    connection: Connection, settings: Settings, hold: Callable[..., list[int]], tmp_path: Path
) -> None:
    gone, wrong, other = hold(FILES[0], WRONG, FILES[1])
    Path(batches.get(connection, gone).file_path).unlink()
    assert not settings.scratch.exists()  # as on a new worker
    bodies = held(tmp_path, settings)
    assert list(bodies) == [gone, wrong, other]
    assert bodies[gone].endswith(
        "What would become of it cannot be told: "
        "its file cannot be read or copied just now (No such file or directory)."
    )
    assert bodies[wrong].endswith("It would fail today (missing_column), and nothing of it would be loaded.")
    assert "| created | 1 |" in bodies[other]


def test_batches_stay_those_of_the_task_that_tries_them_out_and_what_was_decided_meanwhile_is_not_asked(
    settings: Settings, hold: Callable[..., list[int]], tmp_path: Path
) -> None:
    first, second, third = hold(*FILES)
    slow = SLOW.format(first=first, second=second)
    assert list(held(tmp_path, settings, slow)) == [first, third]
