"""Processes that judge: started when needed, warm after that, ended in time, gone with whoever asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import judges, loading, templates
from rowledger.errors import JudgedTooLong, NotJudged, UnknownCode
from rowledger.judges import Case, Judges
from rowledger.settings import Settings
from rowledger.suites import suite_hash

SECONDS = 120.0
CONTACTS = "Customer number,Email,Last name,Country\nK1,a@example.com,Ann,DE\nK2,b@example.com,Ben,XX\n"


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def case(settings: Settings, tmp_path: Path, database_url: str) -> Case:
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "contacts.csv").write_text(CONTACTS)
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    return Case(
        database_url, str(folder), str(folder / "contacts.csv"), template.name, template.source, suite_hash(template),
        "DEMO", "tester", first=10,
    )  # fmt: skip


@pytest.fixture
def asked() -> Iterator[Callable[..., Judges]]:
    """Judges that are ended with the test."""
    made: list[Judges] = []

    def asked(**options: Any) -> Judges:
        made.append(Judges(**options))
        return made[-1]

    yield asked
    for one in made:
        one.close()


@contextlib.contextmanager
def held(database_url: str) -> Iterator[Callable[[], int]]:
    """Nobody can register a batch meanwhile; gives how many judges wait for it."""
    with contextlib.closing(psycopg2.connect(database_url)) as holding, holding.cursor() as cursor:
        cursor.execute("LOCK TABLE rowledger.import_batch")

        def waiting() -> int:
            with contextlib.closing(psycopg2.connect(database_url)) as asking, asking.cursor() as other:
                other.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND application_name LIKE 'rowledger-judge%' AND wait_event_type = 'Lock'"
                )
                found = other.fetchone()
                assert found
                return int(found[0])

        yield waiting


def test_a_judge_stays_for_the_next_file_and_another_takes_the_place_of_one_that_was_killed(
    asked: Callable[..., Judges], case: Case
) -> None:
    judging = asked()
    first = judging.ask(case, SECONDS)
    assert (first.records_in_file, first.counts) == (2, {"created": 1, "rejected": 1})
    (pid,) = judging.pids
    assert judging.ask(case, SECONDS) == first
    assert judging.pids == [pid]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid))
    assert judging.ask(case, SECONDS) == first
    (other,) = judging.pids
    assert other != pid
    assert not Path(f"/proc/{pid}").exists()  # nor is there anything left of it


def test_what_is_wrong_with_the_choices_is_said_by_its_name_and_the_judge_stays(
    asked: Callable[..., Judges], case: Case
) -> None:
    judging = asked()
    with pytest.raises(UnknownCode, match='no domain "NOWHERE"'):
        judging.ask(Case(**vars(case) | {"domain": "NOWHERE"}), SECONDS)
    assert len(judging.pids) == 1


def test_a_judge_is_killed_if_it_takes_too_long_or_nobody_waits_any_more_and_dies_with_who_asked(
    asked: Callable[..., Judges], case: Case, database_url: str
) -> None:
    judging = asked(at_once=1)
    with pytest.raises(JudgedTooLong, match="stopped after 0 seconds"):
        judging.ask(case, 0.0)
    assert judging.pids == []
    with held(database_url) as waiting:
        stop = threading.Event()
        stopped: list[BaseException] = []

        def ask() -> None:
            try:
                judging.ask(case, SECONDS, stop)
            except NotJudged as error:
                stopped.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: waiting() == 1)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(judges, "PLACE_SECONDS", 0.05)
            with pytest.raises(NotJudged, match="As many checks"):
                judging.ask(case, SECONDS)
        stop.set()
        asking.join(SECONDS)
        assert "was stopped" in str(stopped[0])
        until(lambda: waiting() == 0)

        script = (
            "import sys, json; from rowledger.judges import Case, Judges\n"
            "Judges().ask(Case(**json.loads(sys.argv[1])), 600)"
        )
        parent = subprocess.Popen([sys.executable, "-c", script, json.dumps(vars(case))])
        try:
            until(lambda: waiting() == 1)
            (judge,) = _children(parent.pid)
        finally:
            parent.kill()
            parent.wait()
        until(lambda: not lives(judge) and waiting() == 0)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_idle_judge_ends_and_holds_no_socket_until_then(
    asked: Callable[..., Judges], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "not for everybody")
    with socket.socket() as listening:
        listening.listen()
        listening.set_inheritable(True)
        judging = asked()
        judging.warm()
        judging.warm()
        (pid,) = judging.pids
        held = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
        assert [one for one in held if one.startswith("socket:")] == []
        assert b"AIRFLOW__" not in Path(f"/proc/{pid}/environ").read_bytes()
    soon = asked(idle_seconds=0.05)
    soon.warm()
    until(lambda: soon.pids == [])
