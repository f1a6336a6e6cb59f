"""Files that come by themselves, in a real Airflow: taken by the sensor, held for a person, decided by him."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from engine import Engine, Run, contacts

from rowledger import batches, control
from rowledger.feeds import unusual
from rowledger.model import Batch

APPROVAL = "import_approval"
ANSWER_SECONDS = 240  # on a busy machine; the scheduler looks every 15 s whose time to wait is over
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
    for run in engine.api.call("GET", f"/dags/{APPROVAL}/dagRuns?state=running")["dag_runs"]:
        engine.api.call("PATCH", Run(engine, APPROVAL, run["dag_run_id"])._path, {"state": "failed"})


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


def held(engine: Engine, folder: Path, *names: str) -> list[int]:
    """Unusual batches, held."""
    seqnos = [drop(engine, folder, name, contacts(name, 40)).seqno for name in names]
    engine.until(lambda: all(engine.batch(seqno).status == "paused" for seqno in seqnos))
    assert [engine.batch(seqno).loaded_records for seqno in seqnos] == [0] * len(names)
    return seqnos


class Question:
    """What Airflow asks about a batch."""

    def __init__(self, engine: Engine, seqno: int) -> None:
        self.engine, self.seqno = engine, seqno
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

    def answer_in_vain(self, option: str, name: str) -> None:
        """Leave an answer and a new try, as Airflow does when it takes the end of the asking process for the task's."""
        self._try_again(
            "UPDATE hitl_detail SET responded_at = now(), responded_by = %s, chosen_options = %s",
            json.dumps({"id": name, "name": name}), json.dumps([option]),
        )  # fmt: skip

    def ask_in_vain(self) -> None:
        """Leave nothing but a new try, as of one that was lost before it asked; it asks."""
        self._try_again("DELETE FROM hitl_detail")
        self.engine.until(self._find)

    def _try_again(self, statement: str, *values: str) -> None:
        self.engine.until(lambda: self.state() == "awaiting_input")
        mine = self.engine.api.call("GET", self.path)
        with contextlib.closing(psycopg2.connect(self.engine.server.get_uri("airflow"))) as airflow, airflow:
            airflow.cursor().execute(f"{statement} WHERE ti_id = %s", (*values, mine["id"]))
        self.engine.api.call("POST", f"/dags/{APPROVAL}/clearTaskInstances", {
            "dry_run": False, "dag_run_id": self.run.run_id, "task_ids": [["ask", mine["map_index"]]],
            "only_failed": False,
        })  # fmt: skip

    def until_it_ends(self) -> None:
        self.engine.until(lambda: self.state() == "success", ANSWER_SECONDS)


def last_event(engine: Engine, seqno: int) -> tuple[str, str, str | None]:
    event = batches.events(engine.connection, seqno)[-1]
    return event["event"], event["by"], event["detail"]


def test_an_unusual_file_waits_for_a_person_who_answers_in_airflow_or_on_the_desk(
    engine: Engine, folder: Path
) -> None:
    approved, cancelled, refused = held(engine, folder, "many.csv", "wrong.csv", "worse.csv")
    engine.trigger(APPROVAL)
    questions = {seqno: Question(engine, seqno) for seqno in (approved, cancelled, refused)}
    assert unusual.take_up(engine.connection, 60, 10) == []
    body = questions[approved].detail["body"]
    assert "40 records, 10 are usual (more than 3 times as many)" in body
    assert "| created | 39 |" in body
    assert "@" not in body  # no value of the file

    control.cancel(engine.connection, cancelled, by="anna")
    questions[refused].answer_in_vain("Reject", "anna")
    questions[approved].ask_in_vain()
    questions[approved].answer("Approve")
    questions[approved].until_it_ends()
    assert last_event(engine, approved) == ("resumed", "admin", "approved in Airflow")
    run = engine.work_off(approved)
    assert run.state() == "success"
    assert engine.batch(approved).counts["created"] == 39
    (event,) = events_of_assets(engine, run)
    assert event["extra"] == {
        "seqno": approved, "kind": "contact", "domain": "DEMO", "template": "contacts", "records": 40,
        "counts": {"created": 39, "rejected": 1},
    }  # fmt: skip
    run.clear("close")  # finds nothing to do
    run.wait()
    assert events_of_assets(engine, run) == [event]
    forget_events_of_assets(engine)  # as if the worker had been lost before its report
    run.clear("close")
    run.wait()
    assert [one["extra"] for one in events_of_assets(engine, run)] == [event["extra"]]

    for seqno in (cancelled, refused):
        questions[seqno].until_it_ends()
        assert engine.batch(seqno).loaded_records == 0
    assert last_event(engine, cancelled)[:2] == ("cancelled", "anna")
    assert last_event(engine, refused) == ("cancelled", "anna", "at record 1: refused in Airflow")


def forget_events_of_assets(engine: Engine) -> None:
    with contextlib.closing(psycopg2.connect(engine.server.get_uri("airflow"))) as connection, connection:
        connection.cursor().execute("DELETE FROM asset_alias_asset_event; DELETE FROM asset_event")


def events_of_assets(engine: Engine, run: Run) -> list[dict[str, Any]]:
    found = engine.api.call("GET", "/assets/events?limit=100")["asset_events"]
    return [one for one in found if (one["source_dag_id"], one["source_run_id"]) == (run.dag, run.run_id)]
