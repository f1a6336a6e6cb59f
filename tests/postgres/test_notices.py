"""Who is told of what: each event once, grouped, at least once sent, with nothing of a file's values in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rowledger import control
from rowledger.db import Connection, row, rows, transaction
from rowledger.feeds import Feed, notices
from rowledger.feeds.model import Tell
from rowledger.model import Batch

HEADER = "Customer number,Email,Last name,Country\n"
CANARY = "CANARY"
GOOD = HEADER + f"1,{CANARY}@example.com,{CANARY},DE\n"
BAD = HEADER.replace(",", ";") + f"1;{CANARY}@example.com;{CANARY};DE\n"
ALL = ("executed", "failed", "held", "missing")
OPS = Tell.model_validate(
    {"of": ALL, "mail": ["ops@example.com"], "webhook": {"url": "http://127.0.0.1:9/hook", "secret": "hook"}}
)
DOMAIN = {"DEMO": OPS}
FEED = Feed(
    name="agency",
    title="An agency",
    place="x",
    pattern="*",
    kind="contact",
    domain="DEMO",
    template="contacts",
)


@pytest.fixture(autouse=True)
def _begun(connection: Connection) -> None:
    assert notices.write(connection, [FEED.model_copy(update={"tell": OPS})], DOMAIN) == 0


def messages(connection: Connection) -> list[dict[str, Any]]:
    with transaction(connection) as cursor:
        return rows(cursor, "SELECT * FROM notice_message ORDER BY created_at, channel")


def events(connection: Connection) -> list[list[tuple[str, int | None]]]:
    """Of every webhook message, its events."""
    return [
        [(event["event"], event["seqno"]) for event in one["body"]["events"]]
        for one in messages(connection)
        if one["channel"] == "webhook"
    ]


def of_feed(connection: Connection, seqno: int) -> None:
    with transaction(connection) as cursor:
        cursor.execute("INSERT INTO feed VALUES ('agency', 'contact', 'DEMO') ON CONFLICT DO NOTHING")
        cursor.execute(
            "INSERT INTO feed_file (feed, name, identity, bytes, sha256, seqno) VALUES ('agency', 'x', %s, 1, 'x', %s)",
            (str(seqno), seqno),
        )


def test_what_is_new_becomes_one_message_for_each_channel_and_each_event_is_told_once(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    good, bad = submit(GOOD), submit(BAD)
    work(good), work(bad)
    assert notices.write(connection, [], DOMAIN) == 2
    assert notices.write(connection, [], DOMAIN) == 0
    mail, hook = messages(connection)
    assert (mail["channel"], mail["recipient"]) == ("mail", {"to": ["ops@example.com"]})
    assert (hook["channel"], hook["recipient"]) == (
        "webhook",
        {"url": "http://127.0.0.1:9/hook", "secret": "hook"},
    )
    assert events(connection) == [[("executed", good), ("failed", bad)]]
    work(submit(GOOD.replace("1,", "2,")))
    assert notices.write(connection, [], DOMAIN) == 2


def test_no_value_of_a_file_is_told(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit(GOOD)), work(submit(BAD)), work(submit(HEADER + f"1,{CANARY},{CANARY},{CANARY}\n"))
    notices.write(connection, [], DOMAIN)
    told = list(notices.due(connection))
    assert len(told) == 2
    for message in told:
        assert CANARY not in json.dumps(message.body) + message.subject + message.html
    assert told[0].body["counts"] == {"executed": 1, "failed": 2}


def test_what_was_before_is_not_told(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit(GOOD))
    assert notices.write(connection, [], {"OTHER": OPS}) == 0
    later = FEED.model_copy(update={"name": "later", "tell": OPS})
    assert notices.write(connection, [later], {}) == 0


def test_a_feed_that_says_who_is_told_is_not_told_to_its_domain_too(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    seqno = submit(GOOD)
    of_feed(connection, seqno)
    work(seqno)
    assert notices.write(connection, [FEED.model_copy(update={"tell": OPS})], DOMAIN) == 2
    assert {one["scope"] for one in messages(connection)} == {"feed agency"}


def test_a_feed_that_says_nothing_is_told_to_its_domain(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    seqno = submit(GOOD)
    of_feed(connection, seqno)
    work(seqno)
    assert notices.write(connection, [FEED], DOMAIN) == 2
    assert {one["scope"] for one in messages(connection)} == {"domain DEMO"}


def test_what_a_feed_was_told_is_not_told_to_its_domain_when_its_file_has_a_typo(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    feed = FEED.model_copy(update={"tell": OPS.model_copy(update={"of": ("failed",)})})
    for content in (GOOD, BAD):
        seqno = submit(content)
        of_feed(connection, seqno)
        work(seqno)
    assert notices.write(connection, [feed], DOMAIN) == 2
    assert notices.write(connection, [], DOMAIN) == 0
    later = submit(BAD)
    of_feed(connection, later)
    work(later)
    assert notices.write(connection, [], DOMAIN) == 2
    assert events(connection) == [[("failed", seqno)], [("failed", later)]]


def test_who_wants_to_know_of_more_is_told_of_what_happens_from_then_on(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit(GOOD))
    assert notices.write(connection, [], {"DEMO": OPS.model_copy(update={"of": ("failed",)})}) == 0
    assert notices.write(connection, [], DOMAIN) == 0
    good = submit(GOOD)
    work(good)
    assert notices.write(connection, [], DOMAIN) == 2
    assert events(connection) == [[("executed", good)]]


def test_only_what_is_wanted_is_told(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit(GOOD)), work(submit(BAD))
    notices.write(connection, [], {"DEMO": OPS.model_copy(update={"of": ("failed",)})})
    assert [[event for event, _ in one] for one in events(connection)] == [["failed"]]


def test_held_and_missing_are_told_a_pause_of_a_person_is_not(
    connection: Connection, submit: Callable[..., int]
) -> None:
    held, paused = submit(GOOD), submit(GOOD)
    of_feed(connection, held)
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO feed_hold (seqno, feed, why) VALUES (%s, 'agency', '9 records, 20 are usual')",
            (held,),
        )
        cursor.execute("INSERT INTO feed_alarm (feed, due_at) VALUES ('agency', '2026-01-05 06:00Z')")
    control.pause(connection, held, by="feed agency", why="9 records, 20 are usual")
    control.pause(connection, paused, by="anna")
    notices.write(connection, [FEED.model_copy(update={"tell": OPS})], DOMAIN)
    (told,) = {one["scope"]: one["body"] for one in messages(connection)}.values()
    assert told["counts"] == {"missing": 1, "held": 1}
    assert [event["sentence"] for event in told["events"]] == [
        "Feed agency: a file was due 2026-01-05 06:00 UTC and has not come.",
        f"Import batch {held}, {told['events'][1]['file_name']}, waits for approval: 9 records, 20 are usual.",
    ]


def test_a_crowd_of_events_is_one_message_that_counts_them(
    connection: Connection,
    submit: Callable[..., int],
    work: Callable[[int], Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "EVENTS_PER_MESSAGE", 2)
    for _ in range(5):
        work(submit(BAD))
    assert notices.write(connection, [], DOMAIN) == 2
    (mail, _) = notices.due(connection)
    assert (mail.subject, len(mail.body["events"]), mail.body["more"]) == (
        "Rowledger, domain DEMO: 5 failed",
        2,
        3,
    )
    assert "And 3 more." in mail.html


def test_a_message_comes_again_under_its_id_until_it_is_sent_ever_later_and_for_a_day(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit(GOOD))
    notices.write(connection, [], {"DEMO": OPS.model_copy(update={"mail": ()})})
    (first,) = notices.due(connection)  # whose sender is lost
    assert list(notices.due(connection)) == []
    waits = []
    for _ in range(3):
        with transaction(connection) as cursor:
            wait = row(
                cursor, "SELECT extract(epoch FROM next_try_at - now())::int AS wait FROM notice_message"
            )
            cursor.execute("UPDATE notice_message SET next_try_at = now()")
        assert wait
        waits.append(wait["wait"])
        (again,) = notices.due(connection)
        assert (again.message_id, again.body) == (first.message_id, first.body)
        assert not notices.not_sent(connection, again, "ConnectionError: the answer was 500.")
    assert waits[0] < waits[1] < waits[2]
    assert [one["trouble"] for one in notices.unsent(connection)] == ["ConnectionError: the answer was 500."]
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE notice_message SET created_at = now() - interval '25 hours', next_try_at = now()"
        )
    (last,) = notices.due(connection)
    assert notices.not_sent(connection, last, "away")
    with transaction(connection) as cursor:
        cursor.execute("UPDATE notice_message SET next_try_at = now()")
    assert list(notices.due(connection)) == []


def test_who_has_not_taken_a_message_gets_no_other_in_that_run_and_new_messages_come_first(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    with transaction(connection) as cursor:
        for channel, number in (("webhook", 1), ("webhook", 2), ("mail", 3)):
            cursor.execute(
                "INSERT INTO notice_message (scope, channel, recipient, body, created_at)"
                " VALUES ('domain DEMO', %s, '{\"to\": \"x\"}', to_jsonb(%s), now() + %s * interval '1 s')",
                (channel, number, number),
            )
    tried: list[Any] = []
    failed: list[str] = []
    for _ in range(2):
        for message in notices.due(connection, failed):
            tried.append(message.body)
            if message.channel == "webhook":
                failed.append(message.message_id)
                notices.not_sent(connection, message, "away")
        tried.append("next run")
        failed.clear()
        with transaction(connection) as cursor:
            cursor.execute("UPDATE notice_message SET next_try_at = now() WHERE channel = 'webhook'")
    assert tried == [1, 3, "next run", 2, "next run"]


def test_what_is_sent_is_sent_no_more(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit(GOOD))
    notices.write(connection, [], DOMAIN)
    for message in notices.due(connection):
        notices.sent(connection, message)
    with transaction(connection) as cursor:
        cursor.execute("UPDATE notice_message SET next_try_at = now()")
    assert list(notices.due(connection)) == []
    assert notices.unsent(connection) == []


def test_values_of_users_are_no_markup_in_a_mail(connection: Connection) -> None:
    body = {
        "counts": {"failed": 1},
        "more": 0,
        "events": [{"sentence": "Import batch 1, <b>x</b>.csv, failed"}],
    }
    message = notices.Message("id", "domain <i>", "mail", {}, body, 1)
    assert "<b>" not in message.html
    assert "<i>" not in message.html


def test_a_signature_covers_the_time_and_the_body() -> None:
    # printf '1700000000.{"id": 1}' | openssl dgst -sha256 -hmac secret
    expected = "v1=77d49e28a90edb7970a94175a17edbe71cab049fda13f7b92df9679a73eaa5a2"
    assert notices.signature("secret", 1700000000, b'{"id": 1}') == expected
    assert notices.signature("secret", 1700000001, b'{"id": 1}') != expected
    assert notices.signature("secret", 1700000000, b'{"id": 2}') != expected
    assert notices.signature("other", 1700000000, b'{"id": 1}') != expected
