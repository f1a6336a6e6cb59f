"""The operations page and its API: what waits and runs, feeds, what was kept out by which column of which partner, days."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import expect, sync_playwright

from rowledger import control, db, feeds, loading, pipeline
from rowledger.db import Connection, rows, transaction
from rowledger.desk import operations_view
from rowledger.desk.context import Schedule
from rowledger.feeds import arrivals, cadence
from rowledger.model import Batch
from rowledger.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
from serving import served

ClientAs = Callable[..., TestClient]
HEADER = "Customer number,Email,Last name,Country\n"
RUN_NOW = 'data-ask="ask-run-now"'
FEED = """
title: Contacts of an agency
place: feeds/agency
pattern: "*.csv"
kind: contact
domain: DEMO
template: contacts
settled_after: 0s
expected: {every: 1d}
"""
BY_HAND = (
    "Email,Nachname,Country\na@example.com,A,DE\nb@example.com,B,XX\nplanted wrong,,XX\nd@example.com,D,DE\n"
)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """A folder of feeds of its own."""
    (tmp_path / "feeds").mkdir()
    return replace(settings, feeds=tmp_path / "feeds")


@pytest.fixture
def come(connection: Connection, settings: Settings) -> Callable[..., list[int]]:
    """A file comes by the feed agency, which is declared if it is not; returns its batches."""

    def come(content: str | None, name: str = "may.csv", declared: str = FEED) -> list[int]:
        path = settings.feeds / "agency.yml"
        path.write_text(declared)
        feed = feeds.read_feed(path, loading.kinds())
        place = settings.home / feed.place
        if content is not None:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(content)
        (done,) = arrivals.look(arrivals.local(connection, settings), [feed])
        cadence.watch(connection, feed)
        return done.seqnos

    return come


def some_contacts(count: int, wrong: int) -> str:
    return HEADER + "".join(
        f"K{n},k{n}@example.com,N,{'Planted' if n < wrong else 'DE'}\n" for n in range(count)
    )


def told(client: TestClient, what: str, **query: Any) -> Any:
    answer = client.get(f"/api/v1/operations/{what}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def put_back(connection: Connection, seqno: int, days: int) -> None:
    """As if a batch had been uploaded days ago."""
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET uploaded_at = uploaded_at - make_interval(days => %s) WHERE seqno = %s",
            (days, seqno),
        )


# What waits and what runs ------------------------------------------------------------------------------------------


def test_nothing_is_said_plainly(client: TestClient) -> None:
    page = client.get("/operations").text
    for sentence in ("Nothing waits.", "Nothing is being worked on.", "There is no feed yet.",
                     "No file that was uploaded in the last 30 days", "Nothing was uploaded in the last 30 days."):  # fmt: skip
        assert sentence in page
    assert told(client, "now") | {"now": None} == {
        "now": None,
        "waiting": [],
        "running": [],
        "running_in_all": 0,
    }


def test_what_waits_is_told_by_kind_with_the_age_of_the_oldest_and_when_it_is_worked_off(
    client: TestClient, connection: Connection, submit: Callable[..., int], runs: Any
) -> None:
    old, _ = submit(BY_HAND), submit(BY_HAND)
    submit("F1;05-03-2026;30;;\n", "result_codes")
    put_back(connection, old, 2)
    runs.plan = Schedule(False, datetime(2026, 5, 1, 12, tzinfo=UTC))
    contacts, statuses = told(client, "now")["waiting"]
    assert (contacts["kind"], contacts["state"], contacts["batches"], contacts["oldest"]) == (
        "contact", "waiting", 2, old,
    )  # fmt: skip
    assert 2 * 86400 <= contacts["age"] < 3 * 86400
    assert (contacts["next_run"], contacts["dag_paused"]) == ("2026-05-01T12:00:00+00:00", False)
    assert (statuses["kind"], statuses["batches"]) == ("contract_status", 1)
    page = client.get("/operations").text
    assert "Worked off in the next run, <time" in page
    runs.plan = Schedule(True, None)
    assert "The DAG is paused" in client.get("/operations").text
    assert "The DAG is paused" in (page := client.get(f"/batches/{old}").text)
    assert RUN_NOW not in page, "it would be refused"
    runs.plan = Schedule(False, None)
    assert RUN_NOW in client.get(f"/batches/{old}").text
    runs.plan = Schedule(True, None)
    assert told(client, "now")["waiting"][0]["dag_paused"] is True


def test_why_something_waits_is_told(
    client: TestClient, connection: Connection, settings: Settings, submit: Callable[..., int]
) -> None:
    seqno, paused = submit(BY_HAND), submit(BY_HAND)
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET waits_because = 'The disk is full.' WHERE seqno = %s", (seqno,)
        )
    control.pause(connection, paused, by="anna", why="lunch")
    waiting, stopped = told(client, "now")["waiting"]
    assert (waiting["state"], waiting["troubled"], waiting["why"]) == ("waiting", 1, "The disk is full.")
    assert (stopped["state"], stopped["batches"], stopped["feed"]) == ("paused", 1, None)
    assert (
        "1 meets trouble that passes</span>: <bdi>The disk is full.</bdi>" in client.get("/operations").text
    )


def test_a_batch_that_its_feed_holds_is_told_apart_from_one_that_somebody_paused(
    client: TestClient, connection: Connection, come: Callable[..., list[int]]
) -> None:
    (seqno,) = come(some_contacts(3, 0))
    control.pause(connection, seqno, by="feed agency", why="3 records")
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO feed_hold (seqno, feed, held_at, why)"
            " VALUES (%s, 'agency', clock_timestamp(), '3 records, usually 1,000')",
            (seqno,),
        )
    (held,) = told(client, "now")["waiting"]
    assert (held["state"], held["feed"], held["why"]) == ("held", "agency", "3 records, usually 1,000")
    assert told(client, "feeds")["feeds"][0]["held"] == 1
    page = client.get("/operations").text
    assert "held by its feed" in page
    assert "1 held" in page


def test_what_is_worked_on_is_told_with_its_progress_and_whether_its_worker_was_lost(
    client: TestClient, connection: Connection, settings: Settings, submit: Callable[..., int]
) -> None:
    seqno = submit(BY_HAND)
    pipeline.validate(pipeline.Worker(connection, settings, "tester"), seqno)
    (one,) = told(client, "now")["running"]
    assert (one["seqno"], one["worked_on"], one["progress"]["doing"]) == (seqno, True, "Loading")
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET leased_until = now() - interval '1 hour' WHERE seqno = %s", (seqno,)
        )
    (one,) = told(client, "now")["running"]
    assert (one["worked_on"], one["silent_since"] is None) == (False, False)
    assert "Its worker was lost" in client.get("/operations/now").text


def test_an_open_page_gets_what_stands_now_only_if_it_has_changed(
    client: TestClient, submit: Callable[..., int]
) -> None:
    (seen,) = re.findall(r"operations/now\?seen=([0-9a-f]{12})", client.get("/operations").text)
    assert client.get(f"/operations/now?seen={seen}").status_code == 204
    submit(BY_HAND)
    answer = client.get(f"/operations/now?seen={seen}")
    assert (answer.status_code, "#1</a>" in answer.text) == (200, True)


def test_an_open_page_shows_what_has_come_without_being_asked(
    app: FastAPI, submit: Callable[..., int]
) -> None:
    with served(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context()
        context.add_cookies([{"name": "_token", "value": "viewer", "url": address}])
        page = context.new_page()
        page.goto(f"{address}/operations")
        expect(page.get_by_text("Nothing waits.")).to_be_visible()
        seqno = submit(BY_HAND)
        expect(page.get_by_role("link", name=f"#{seqno}", exact=True)).to_be_visible(timeout=60_000)
        expect(page.get_by_text("Nothing waits.")).to_have_count(0)
        browser.close()


# Feeds -------------------------------------------------------------------------------------------------------------


def test_a_feed_is_told_with_its_last_file_what_became_of_it_and_when_the_next_one_is_due(
    client: TestClient, come: Callable[..., list[int]], work: Callable[[int], Batch]
) -> None:
    (seqno,) = come(some_contacts(4, 1))
    work(seqno)
    (feed,) = told(client, "feeds")["feeds"]
    assert (feed["name"], feed["file_name"], feed["seqno"], feed["state"], feed["records"], feed["rejected"]) == (
        "agency", "may.csv", seqno, "succeeded", 4, 1,
    )  # fmt: skip
    last, due = (datetime.fromisoformat(feed[name]) for name in ("last_file_at", "next_due"))
    assert due - last == timedelta(days=1)
    page = client.get("/operations").text
    assert "Contacts of an agency" in page
    assert "4 records, 1 rejected" in page
    assert 'is-succeeded">well' in page


def test_the_same_bytes_once_more_are_the_last_file_and_no_second_import(
    client: TestClient, come: Callable[..., list[int]], work: Callable[[int], Batch]
) -> None:
    (seqno,) = come(some_contacts(4, 1))
    work(seqno)
    assert come(some_contacts(4, 1), "june.csv") == []
    (feed,) = told(client, "feeds")["feeds"]
    assert (feed["file_name"], feed["seqno"], feed["duplicate"]) == ("june.csv", seqno, True)
    assert "the same bytes as that import" in client.get("/operations").text
    found = told(client, "rejections")
    assert (found["of_batches"], found["records"], found["reasons"][0]["records"]) == (1, 1, 1)


def test_a_missing_file_comes_first_and_is_said_to_be_overdue(
    client: TestClient, connection: Connection, settings: Settings, come: Callable[..., list[int]]
) -> None:
    come(some_contacts(1, 0))
    (settings.feeds / "aaa.yml").write_text(FEED.replace("agency", "other"))
    with transaction(connection) as cursor:
        cursor.execute("INSERT INTO feed_alarm (feed, due_at) VALUES ('agency', now() - interval '1 minute')")
    first, second = told(client, "feeds")["feeds"]
    assert (first["name"], first["missing_since"] is None, first["next_due"]) == ("agency", False, None)
    assert (second["name"], second["looked_at"], second["next_due"]) == ("aaa", None, None)
    page = client.get("/operations").text
    for sentence in ("file missing", "overdue", "nobody has looked yet"):
        assert sentence in page


def test_what_a_feed_could_not_take_is_told(client: TestClient, come: Callable[..., list[int]]) -> None:
    assert come(None) == []  # its folder is not there
    (feed,) = told(client, "feeds")["feeds"]
    assert "agency" in feed["trouble"]
    assert "in trouble" in client.get("/operations").text


def test_a_feed_that_is_wrong_or_gone_and_a_folder_that_is_not_there_are_said_plainly(
    client: TestClient, settings: Settings, come: Callable[..., list[int]]
) -> None:
    come(some_contacts(1, 0))
    path = settings.feeds / "agency.yml"
    path.write_text(FEED.replace("kind: contact", "kind: cats"))
    found = told(client, "feeds")
    assert [one["name"] for one in found["wrong"]] == ["agency.yml"]
    assert str(settings.feeds) not in found["wrong"][0]["message"]
    assert found["feeds"][0]["broken"]
    assert "its file is wrong" in client.get("/operations").text
    path.unlink()
    assert told(client, "feeds")["feeds"][0]["there"] is False
    assert "not declared any more" in client.get("/operations").text
    settings.feeds.rmdir()
    assert told(client, "feeds")["no_folder"] == str(settings.feeds)
    page = client.get("/operations").text
    assert "There is no folder of feeds here:" in page
    assert "not known here" in page


# What costs most ---------------------------------------------------------------------------------------------------


def test_the_column_of_the_partner_that_costs_most_comes_first(
    client: TestClient,
    come: Callable[..., list[int]],
    submit: Callable[..., int],
    work: Callable[[int], Batch],
) -> None:
    (of_feed,) = come(some_contacts(10, 4))
    by_hand = submit(BY_HAND)
    work(of_feed), work(by_hand)
    submit(BY_HAND)  # of what has not ended nobody knows yet
    found = told(client, "rejections")
    first, *others = found["reasons"]
    assert (first["template"], first["column"], first["feed"], first["of_feed"]) == (
        "contacts", "Country", "agency", 4,
    )  # fmt: skip
    assert (first["records"], first["of_records"], first["share"], first["batches"]) == (6, 14, 0.428571, 2)
    assert {(one["rule"], one["column"], one["records"]) for one in others} == {
        ("format", "Email", 1), ("required", "Nachname", 1),
    }  # fmt: skip
    assert [(one["feed"], one["batches"], one["of_records"], one["records"]) for one in found["feeds"]] == [
        ("agency", 1, 10, 4), (None, 1, 4, 2),
    ]  # fmt: skip
    assert (found["of_batches"], found["of_records"], found["records"]) == (2, 14, 6)
    page = client.get("/operations").text
    assert "<strong>6</strong> of 14 records in 2 imports were rejected." in page
    assert "mostly by the feed <bdi>agency</bdi>" in page


def test_costs_are_narrowed_to_a_feed_an_outcome_and_days(
    client: TestClient, connection: Connection, come: Callable[..., list[int]], submit: Callable[..., int],
    work: Callable[[int], Batch],
) -> None:  # fmt: skip
    (of_feed,) = come(some_contacts(10, 4))
    by_hand, of_old = submit(BY_HAND), submit(BY_HAND)
    put_back(connection, by_hand, 3)
    put_back(connection, of_old, 40)
    for seqno in (of_feed, by_hand, of_old):
        work(seqno)
    assert [one["records"] for one in told(client, "rejections", feed="agency")["reasons"]] == [4]
    week = told(client, "rejections", days=7)
    assert (week["of_batches"], len(week["days"]), week["reasons"][0]["by_day"]) == (
        2, 7, [0, 0, 0, 2, 0, 0, 4],
    )  # fmt: skip
    assert told(client, "rejections", days=90)["of_batches"] == 3
    assert told(client, "rejections", outcome="parked")["records"] == 0
    page = client.get("/operations?feed=agency&days=7&outcome=rejected").text
    assert "<strong>4</strong> of 10 records in 1 import were rejected." in page
    assert re.search(r'aria-label="4 from \S+ to \S+, most on \S+: 4"', page)
    assert client.get("/operations?days=8").status_code == 422


def test_a_batch_that_ended_twice_counts_as_its_last_end_says(
    client: TestClient, connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    seqno = submit("Email,Last name\n" + "wrong,A\n" * 3)
    assert work(seqno).failed
    before = told(client, "rejections")["reasons"]
    assert [one["records"] for one in before] == [3]
    with transaction(connection) as cursor:
        cursor.execute(db.queries("batches")["reopen"], {"seqno": seqno})
    assert told(client, "rejections")["reasons"] == []
    assert work(seqno).failed
    assert told(client, "rejections")["reasons"] == before


def test_only_the_newest_batches_are_added_up(
    client: TestClient,
    submit: Callable[..., int],
    work: Callable[[int], Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations_view, "MOST", 1)
    work(submit(BY_HAND))
    newest = submit(HEADER + "K1,a@example.com,,DE\n")
    work(newest)
    found = told(client, "rejections")
    assert [(one["rule"], one["last_seqno"]) for one in found["reasons"]] == [("required", newest)]
    assert found["of_batches"] == found["at_most_batches"] == 1


# Day by day --------------------------------------------------------------------------------------------------------


def test_days_add_up_to_what_the_ledger_says(
    client: TestClient, connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    done, failed, old = submit(BY_HAND), submit("no,such,columns\n1,2,3\n"), submit(BY_HAND)
    put_back(connection, old, 2)
    for seqno in (done, failed, old):
        work(seqno)
    submit(BY_HAND)
    days = told(client, "days", days=7)["days"]
    assert len(days) == 7
    today, yesterday, before = days[:3]
    assert (today["batches"], today["failed"], today["unfinished"]) == (3, 1, 1)
    assert (yesterday["batches"], before["batches"]) == (0, 1)
    with transaction(connection) as cursor:
        asked = (
            "SELECT outcome, count(*) AS records FROM import_record WHERE seqno = %(seqno)s GROUP BY outcome"
        )
        for counted, seqno in ((today, done), (before, old)):
            for one in rows(cursor, asked, {"seqno": seqno}):
                assert counted[one["outcome"]] == one["records"]
    page = client.get("/operations?days=7").text
    assert f"/?day={today['day']}&amp;status=failed" in page
    assert "Nothing was uploaded on the other 5 days." in page


def test_messages_that_could_not_be_sent_are_told_without_whom_they_are_for(
    client: TestClient, connection: Connection
) -> None:
    with transaction(connection) as cursor:
        cursor.execute("INSERT INTO notice_scope (scope) VALUES ('domain DEMO')")
        cursor.execute(
            "INSERT INTO notice_message (scope, channel, recipient, body, tries, trouble)"
            """ VALUES ('domain DEMO', 'mail', '{"to": ["planted@example.com"]}', '{}', 2, 'no planted@example.com')"""
        )
    (one,) = told(client, "days")["unsent"]
    assert (one["scope"], one["channel"], one["tries"], one["given_up_at"]) == (
        "domain DEMO",
        "mail",
        2,
        None,
    )
    page = client.get("/operations").text
    assert "Not everybody was told." in page
    assert "planted" not in page + client.get("/api/v1/operations/days").text


# Whose it is -------------------------------------------------------------------------------------------------------


def test_nobody_sees_what_is_of_a_kind_that_they_may_not_read(
    client_as: ClientAs, connection: Connection, settings: Settings, come: Callable[..., list[int]],
    submit: Callable[..., int], work: Callable[[int], Batch],
) -> None:  # fmt: skip
    come(some_contacts(1, 0))
    statuses = FEED.replace("kind: contact", "kind: contract_status").replace("contacts", "result_codes")
    (settings.feeds / "partner.yml").write_text(statuses.replace("Contacts of an agency", "Partner"))
    with transaction(connection) as cursor:
        cursor.execute("INSERT INTO feed (name, kind, domain) VALUES ('gone', 'contract_status', 'DEMO')")
    work(submit("F9;05-03-2026;nonsense;;\nF9;05-33-2026;30;;\n", "result_codes"))
    submit("F1;05-03-2026;30;;\n", "result_codes")
    at_work = submit("F1;06-03-2026;30;;\n", "result_codes")
    pipeline.validate(pipeline.Worker(connection, settings, "tester"), at_work)
    with transaction(connection) as cursor:
        cursor.execute("INSERT INTO notice_scope (scope) VALUES ('feed gone')")
        cursor.execute(
            "INSERT INTO notice_message (scope, channel, recipient, body, tries) VALUES ('feed gone', 'mail', '{}', '{}', 1)"
        )
    everything, contacts = client_as("viewer"), client_as("contact_only:viewer")
    assert len(told(everything, "feeds")["feeds"]) == 3
    assert [one["name"] for one in told(contacts, "feeds")["feeds"]] == ["agency"]
    assert {one["kind"] for one in told(everything, "now")["waiting"]} == {"contact", "contract_status"}
    assert {one["kind"] for one in told(contacts, "now")["waiting"]} == {"contact"}
    assert told(everything, "rejections")["reasons"] != []
    assert told(contacts, "rejections")["reasons"] == []
    assert (told(everything, "days")["days"][0]["batches"], told(contacts, "days")["days"][0]["batches"]) == (
        4,
        1,
    )
    assert (told(everything, "now")["running_in_all"], told(contacts, "now")["running_in_all"]) == (1, 0)
    assert (len(told(everything, "days")["unsent"]), told(contacts, "days")["unsent"]) == (1, [])


def test_no_value_of_a_file_is_quoted(
    client_as: ClientAs,
    come: Callable[..., list[int]],
    submit: Callable[..., int],
    work: Callable[[int], Batch],
) -> None:
    (seqno,) = come(some_contacts(5, 2))
    work(seqno), work(submit(BY_HAND))
    viewer = client_as("viewer")
    addresses = ["/operations", "/operations/now", *(f"/api/v1/operations/{what}" for what in ("now", "feeds", "rejections", "days"))]  # fmt: skip
    for address in addresses:
        answer = viewer.get(address)
        assert answer.status_code == 200
        text = answer.text
        assert "lanted" not in text, address
        assert "@example.com" not in text, address


def test_the_page_is_in_the_navigation_of_those_who_may_read(client_as: ClientAs) -> None:
    page = client_as("viewer").get("/operations").text
    assert re.search(r'href="/operations" aria-current="page">Operations</a>', page)
