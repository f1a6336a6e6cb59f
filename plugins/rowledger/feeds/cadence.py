"""When a file was due and has not come.

In: what a feed expects, when its files came, what time it is; all in UTC. Out: the moment since which a file is missing.
A late file makes up for the one that was missing, and not for the next one too.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta

from rowledger.db import Connection, queries, row, transaction
from rowledger.feeds.model import DAYS, Expected, Feed, duration

_SQL = queries("feeds")
log = logging.getLogger("rowledger.feeds")
Came = Callable[[datetime, datetime], bool]


def watch(connection: Connection, feed: Feed) -> datetime | None:
    """Raise the alarm of a feed once when a file is missing, and clear it when one has come; since when one is missing.

    Call it after a look. Raises TryAgain.
    """
    asked = {"feed": feed.name}
    with transaction(connection) as cursor:
        cleared = row(cursor, _SQL["clear_alarm"], asked)
        if cleared:
            log.info("Feed %s: the file that was due %s has come", feed.name, _shown(cleared["due_at"]))
        known = row(cursor, _SQL["cadence"], asked)
        if not known or known["missing_since"] or not feed.expected:
            return known["missing_since"] if known else None

        def came(after: datetime, upto: datetime) -> bool:
            found = row(cursor, _SQL["came_between"], asked | {"after": after, "upto": upto})
            return bool(found and found["came"])

        since = max(filter(None, (known["since"], known["cleared_at"])))
        due = missing(feed.expected, known["now"], since, known["last_file_at"], came)
        if due and row(cursor, _SQL["raise_alarm"], asked | {"due_at": due}):
            if row(cursor, _SQL["clear_alarm"], asked):
                return None  # it has come since, or was there and not looked at; it does not count for the next one too
            log.warning("Feed %s: a file was due %s and has not come", feed.name, _shown(due))
        return due


def missing(
    expected: Expected, now: datetime, since: datetime, last: datetime | None, came: Came
) -> datetime | None:
    """The moment at which a file was due in vain, or None.

    ``since`` is when the feed began, or when the last alarm was cleared: the file that did that counts no more.
    """
    if expected.every:
        due = max(last or since, since) + duration(expected.every)
        return due if now > due else None
    due, before = _last_two(expected, now)
    if due <= since or came(max(before, since), due):
        return None
    return due


def next_due(expected: Expected, now: datetime, since: datetime, last: datetime | None) -> datetime:
    """Until when the next file must come if none is to be missing; in the past if one is missing already.

    A file that came since the last such moment is the one of the next moment; ``since`` is as for ``missing``.
    """
    if expected.every:
        return max(last or since, since) + duration(expected.every)
    following = _following(expected, now)
    due = next(following)
    before = _last_two(expected, now)[0]
    return next(following) if last and last > max(before, since) else due


def _following(expected: Expected, now: datetime) -> Iterator[datetime]:
    """The moments at which a file will be due."""
    assert expected.by
    at = time.fromisoformat(expected.by)
    for ahead in itertools.count():
        due = datetime.combine((now + timedelta(days=ahead)).date(), at, UTC)
        if due > now and DAYS[due.weekday()] in expected.days:
            yield due


def _last_two(expected: Expected, now: datetime) -> tuple[datetime, datetime]:
    """The last two moments at which a file was due, the later one first."""
    assert expected.by
    at, found = time.fromisoformat(expected.by), []
    for back in range(15):  # a week and a day, twice at most
        day = (now - timedelta(days=back)).date()
        due = datetime.combine(day, at, UTC)
        if due <= now and DAYS[day.weekday()] in expected.days:
            found.append(due)
    return found[0], found[1]


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
