"""Who is told of what: an outbox of messages, written with the notices that they tell of.

A scope is a feed that says who is told, or a domain. What is new in a scope becomes one message for each of its
channels, so that a thousand files make no thousand messages; each event is in one of them, and each message is sent at
least once, with an id by which a receiver knows it again. Messages have counts, names of files and rules; never a value
of a file, nor a sentence that may quote one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rowledger.db import Connection, queries, row, rows, transaction
from rowledger.feeds.model import Feed, Tell

_SQL = queries("notices")
EVENTS_PER_MESSAGE = 50


@dataclass(frozen=True)
class Message:
    """What is sent: to whom, and what about. ``body`` is what a program gets."""

    message_id: str
    scope: str
    channel: str
    recipient: dict[str, Any]
    body: dict[str, Any]
    tries: int

    @property
    def subject(self) -> str:
        """A line for people."""
        counts = ", ".join(f"{count:,} {event}" for event, count in self.body["counts"].items())
        return f"Rowledger, {self.scope}: {counts}"

    @property
    def html(self) -> str:
        """The events for people."""
        lines = "".join(f"<li>{escape(event['sentence'])}</li>" for event in self.body["events"])
        more = f"<p>And {self.body['more']:,} more.</p>" if self.body["more"] else ""
        return f"<p>{escape(self.subject)}</p><ul>{lines}</ul>{more}"


def write(connection: Connection, feeds: Sequence[Feed], domains: Mapping[str, Tell]) -> int:
    """Note what is new in every scope, and write the messages about it; returns their number."""
    others = [feed.name for feed in feeds if feed.tell]
    scopes: list[tuple[str, str | None, str | None, Tell]] = [
        *((feed.who, feed.name, None, feed.tell) for feed in feeds if feed.tell),
        *((f"domain {code}", None, code, tell) for code, tell in domains.items()),
    ]
    written = 0
    for scope, feed, domain, tell in scopes:
        asked = {"scope": scope, "feed": feed, "domain": domain, "others": others}
        with transaction(connection) as cursor:
            cursor.execute(_SQL["begin"], asked)
            noted = rows(cursor, _SQL["note"], asked)
            new = [one["notice_id"] for one in noted if one["event"] in tell.of]
            if not new:
                continue
            body = json.dumps(_body(scope, rows(cursor, _SQL["noted"], {"notices": new})), default=str)
            for channel, recipient in _recipients(tell):
                told = {"scope": scope, "channel": channel, "recipient": json.dumps(recipient), "body": body}
                cursor.execute(_SQL["write"], told)
                written += 1
    return written


def _recipients(tell: Tell) -> Iterator[tuple[str, dict[str, Any]]]:
    if tell.mail:
        yield "mail", {"to": list(tell.mail)}
    if tell.webhook:
        yield "webhook", tell.webhook.model_dump()


def _body(scope: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "scope": scope,
        "counts": dict(Counter(one["event"] for one in found)),
        "events": [_event(one) for one in found[:EVENTS_PER_MESSAGE]],
        "more": max(0, len(found) - EVENTS_PER_MESSAGE),
    }


def _event(one: dict[str, Any]) -> dict[str, Any]:
    counts = {outcome: count for outcome, count in (one["counts"] or {}).items() if count}
    plain = {
        key: one[key]
        for key in ("event", "feed", "domain", "kind", "seqno", "file_name", "records", "error_rule")
    }
    when = {
        "occurred_at": one["occurred_at"].isoformat(),
        "due_at": one["due_at"] and one["due_at"].isoformat(),
    }
    return plain | when | {"counts": counts, "why": one["why"] if one["event"] == "held" else None,
                           "sentence": _sentence(one, counts)}  # fmt: skip


def _sentence(one: dict[str, Any], counts: dict[str, int]) -> str:
    if one["event"] == "missing":
        return f"Feed {one['feed']}: a file was due {one['due_at']:%Y-%m-%d %H:%M} UTC and has not come."
    batch = f"Import batch {one['seqno']}, {one['file_name']}"
    if one["event"] == "held":
        return f"{batch}, waits for approval: {one['why']}."
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items()) or "no records"
    if one["event"] == "failed":
        return f"{batch}, failed ({one['error_rule']}): {outcomes}."
    return f"{batch}, is executed: {outcomes}."


def due(connection: Connection, failed: Collection[str] = ()) -> Iterator[Message]:
    """Messages that are due, one after the other; each is the caller's to send, and comes again if he does not say so.

    He may add the ids of those that were not taken to ``failed``: whom these are for gets no other one then.
    """
    while True:
        with transaction(connection) as cursor:
            found = row(cursor, _SQL["claim"], {"failed": list(failed)})
        if not found:
            return
        yield Message(**found)


def sent(connection: Connection, message: Message) -> None:
    """The message was taken by whom it was sent to."""
    with transaction(connection) as cursor:
        cursor.execute(_SQL["sent"], {"message_id": message.message_id})


def not_sent(connection: Connection, message: Message, trouble: str) -> bool:
    """The message was not taken; it is tried again for a day. True if it is given up."""
    with transaction(connection) as cursor:
        asked = {"message_id": message.message_id, "trouble": trouble[:1000]}
        found = row(cursor, _SQL["not_sent"], asked)
        return bool(found and found["given_up"])


def unsent(connection: Connection) -> list[dict[str, Any]]:
    """The last messages that could not be sent at the first try, and why."""
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["unsent"])


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """What proves that a message comes from here: HMAC-SHA256 of the time, a dot and the body."""
    signed = f"{timestamp}.".encode() + body
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
