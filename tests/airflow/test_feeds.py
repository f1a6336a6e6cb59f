"""Files that come by themselves, in a real Airflow: taken by the sensor, held for a person, decided by him."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, Run, contacts

from rowledger import batches, control
from rowledger.db import rows, transaction
from rowledger.feeds import unusual
from rowledger.model import Batch

APPROVAL = "import_approval"
FEED = """\
title: Contacts of an agency
place: drop/agency
pattern: "*.csv"
kind: contact
domain: DEMO
template: contacts
settled_after: 0s
unusual: {more_records: 3}
"""


@pytest.fixture(scope="module")
def folder(engine: Engine) -> Iterator[Path]:
    """The folder of a feed that has had three usual files; the feed is gone at the end."""
    place = engine.settings.home / "drop" / "agency"
    place.mkdir(parents=True)
    engine.settings.feeds.mkdir(exist_ok=True)
    feed = engine.settings.feeds / "agency.yml"
    feed.write_text(FEED, encoding="utf-8")
    engine.api.call("PATCH", f"/dags/{APPROVAL}", {"is_paused": False})
    yield place
    feed.unlink()
    engine.api.call("PATCH", f"/dags/{APPROVAL}", {"is_paused": True})


def of_feed(engine: Engine, name: str) -> Batch | None:
    found = [
        batch for batch in batches.listed(engine.connection, "contact", limit=20) if batch.file_name == name
    ]
    return found[0] if found else None


def drop(engine: Engine, folder: Path, name: str, content: str) -> Batch:
    """Drop a file and let a run of the DAG take it; the batch as soon as there is one."""
    (folder / f"{name}.part").write_text(content, encoding="utf-8")
    (folder / f"{name}.part").rename(folder / name)
    engine.trigger("contact_import")
    engine.until(lambda: of_feed(engine, name))
    batch = of_feed(engine, name)
    assert batch
    return batch


def test_a_file_dropped_into_a_folder_becomes_an_executed_batch(engine: Engine, folder: Path) -> None:
    for number in range(2):
        (folder / f"usual_{number}.csv").write_text(contacts(f"DR{number}-", 10), encoding="utf-8")
    seqno = drop(engine, folder, "usual_2.csv", contacts("DR2-", 10)).seqno
    engine.until(lambda: engine.batch(seqno).status.terminal)
    done = engine.batch(seqno)
    assert (done.succeeded, done.uploaded_by, done.uploaded_through) == (True, "feed agency", "feed")
    for number in range(2):
        engine.until(lambda number=number: _succeeded(engine, f"usual_{number}.csv"))  # type: ignore[misc]
    assert sorted(path.name for path in (folder / "taken").iterdir()) == [f"usual_{n}.csv" for n in range(3)]
    assert [path.name for path in folder.iterdir()] == ["taken"]


def _succeeded(engine: Engine, name: str) -> bool:
    batch = of_feed(engine, name)
    return batch is not None and batch.succeeded


def held(engine: Engine, folder: Path, name: str) -> int:
    """An unusual batch, held."""
    seqno = drop(engine, folder, name, contacts(name, 40)).seqno
    engine.until(lambda: engine.batch(seqno).status == "paused")
    return seqno


class Question:
    """What Airflow asks about a batch."""

    def __init__(self, engine: Engine, seqno: int) -> None:
        self.engine, self.seqno = engine, seqno
        engine.trigger(APPROVAL)
        engine.until(self._find)
        found = self._find()
        assert found
        self.detail: dict[str, Any] = found
        instance = found["task_instance"]
        self.run = Run(engine, APPROVAL, instance["dag_run_id"])
        self.path = f"{self.run._path}/taskInstances/ask/{instance['map_index']}"

    def _find(self) -> dict[str, Any] | None:
        asked = self.engine.api.call("GET", f"/dags/{APPROVAL}/dagRuns/~/hitlDetails")["hitl_details"]
        subject = f"Import batch {self.seqno} of DEMO is unusual: load it?"
        return next((one for one in asked if one["subject"] == subject), None)

    def state(self) -> str:
        return str(self.engine.api.call("GET", self.path)["state"])

    def answer(self, option: str) -> None:
        self.engine.until(lambda: self.state() == "awaiting_input")
        self.engine.api.call("PATCH", f"{self.path}/hitlDetails", {"chosen_options": [option]})
        self.engine.until(lambda: self.state() == "success")


def last_event(engine: Engine, seqno: int) -> tuple[str, str, str | None]:
    event = batches.events(engine.connection, seqno)[-1]
    return event["event"], event["by"], event["detail"]


def test_an_unusual_file_is_loaded_when_a_person_approves_it_in_airflow(engine: Engine, folder: Path) -> None:
    seqno = held(engine, folder, "many.csv")
    assert engine.batch(seqno).loaded_records == 0
    question = Question(engine, seqno)
    body = question.detail["body"]
    assert "40 records, 10 are usual (more than 3 times as many)" in body
    assert "| created | 39 |" in body
    assert "@" not in body  # no value of the file
    question.answer("Approve")
    assert last_event(engine, seqno) == ("resumed", "admin", "approved in Airflow")
    assert engine.work_off(seqno).state() == "success"
    assert engine.batch(seqno).counts["created"] == 39


def test_what_a_person_refuses_in_airflow_is_cancelled(engine: Engine, folder: Path) -> None:
    seqno = held(engine, folder, "refused.csv")
    Question(engine, seqno).answer("Reject")
    event, by, detail = last_event(engine, seqno)
    assert (event, by) == ("cancelled", "admin")
    assert (detail or "").endswith("refused in Airflow")
    assert (engine.batch(seqno).status, engine.batch(seqno).loaded_records) == ("cancelled", 0)


def test_what_is_decided_on_the_desk_closes_the_question_in_airflow(engine: Engine, folder: Path) -> None:
    seqno = held(engine, folder, "desk.csv")
    question = Question(engine, seqno)
    engine.until(lambda: question.state() == "awaiting_input")
    with transaction(engine.connection) as cursor:
        before = rows(cursor, "SELECT asked_until FROM feed_hold WHERE seqno = %(seqno)s", {"seqno": seqno})
    engine.until(
        lambda: _asked_until(engine, seqno) > before[0]["asked_until"]
    )  # it has looked, and waits on
    assert unusual.take_up(engine.connection, 60, 10) == []
    control.cancel(engine.connection, seqno, by="anna")
    engine.until(lambda: question.state() == "success")
    closed = engine.api.call("GET", f"{question.path}/hitlDetails")
    assert (closed["response_received"], closed["chosen_options"]) == (True, ["Reject"])
    assert last_event(engine, seqno)[:2] == ("cancelled", "anna")


def _asked_until(engine: Engine, seqno: int) -> Any:
    with transaction(engine.connection) as cursor:
        return rows(cursor, "SELECT asked_until FROM feed_hold WHERE seqno = %(seqno)s", {"seqno": seqno})[0][
            "asked_until"
        ]
