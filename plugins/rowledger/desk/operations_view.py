"""How the imports of all together stand and went: what waits, what runs, feeds, what was kept out, day by day.

What is read is bounded: by what has not ended, by the feeds there are, and by the newest ``MOST`` batches of a period.
Nothing here quotes a cell of a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from psycopg2 import sql
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rowledger import feeds, loading
from rowledger.db import Connection, queries, row, rows, transaction
from rowledger.desk import batch_list, batch_view
from rowledger.desk.batch_list import Text
from rowledger.desk.batch_view import Progress
from rowledger.desk.context import Desk
from rowledger.feeds import Feed, cadence
from rowledger.model import Batch, Outcome

_SQL = queries("operations")
MOST = 10_000  # the newest batches of a period whose reasons are added up
MOST_REASONS = 15
MOST_RUNNING = 50
MOST_UNSENT = 20
NotLoaded = Literal["rejected", "ignored", "parked"]


class Period(BaseModel):
    """The days that are looked at: today and those before, in UTC, by when the files were uploaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: Annotated[Literal[7, 30, 90], BeforeValidator(int)] = 30


class Costs(Period):
    """What was kept out: what became of it, and of which feed; left out means all files."""

    outcome: NotLoaded = "rejected"
    feed: Text = Field(default=None, description="only what came by this feed")


@dataclass(frozen=True)
class Running:
    """A batch that is worked on; its worker has been lost if nobody works on it any more."""

    batch: Batch
    progress: Progress | None
    worked_on: bool
    silent_since: datetime | None


@dataclass(frozen=True)
class Now:
    """What has not ended. ``waiting``: by kind, state and feed; ``running``: the longest of all that are counted."""

    now: datetime
    waiting: list[dict[str, Any]]
    running: list[Running]
    running_in_all: int

    @property
    def version(self) -> str:
        """Changes with anything that a page shows of it; with how long something has waited once a minute."""
        waiting = [one | {"age": one["age"] // timedelta(minutes=1)} for one in self.waiting]
        shown = (waiting, [(batch_view.version(one.batch), one.worked_on) for one in self.running])
        return hashlib.sha256(repr((shown, self.running_in_all)).encode()).hexdigest()[:12]


def now(connection: Connection, desk: Desk, kinds: Sequence[str]) -> Now:
    """How the batches of these kinds stand that have not ended, and when those that wait are worked off."""
    asked = {"kinds": list(kinds), "limit": MOST_RUNNING}
    with transaction(connection) as cursor:
        moment = row(cursor, _SQL["today"])
        waiting = rows(cursor, _SQL["unfinished"], asked)
        at_work = {one["seqno"]: one for one in rows(cursor, _SQL["running"], asked)}
    assert moment
    found = {batch.seqno: batch for batch in batch_list.some(connection, list(at_work), kinds)}
    running = [
        Running(
            found[seqno], batch_view.progress(found[seqno], moment["now"]), bool(one["worked_on"]),
            None if one["worked_on"] else one["leased_until"],
        )
        for seqno, one in at_work.items() if seqno in found
    ]  # fmt: skip
    in_all = max((one["running"] for one in at_work.values()), default=0)
    told = [one | {"age": moment["now"] - one["oldest_at"]} | _schedule(desk, one) for one in waiting]
    return Now(moment["now"], told, running, in_all)


def _schedule(desk: Desk, one: Mapping[str, Any]) -> dict[str, Any]:
    """When what waits is worked off: the next run, or that the DAG is paused; nothing if nobody knows."""
    known = desk.engine.schedule(one["kind"]) if desk.engine and one["state"] == "waiting" else None
    return {
        "dag_paused": known.paused if known else None,
        "next_run": known.next_run if known and not known.paused else None,
    }


@dataclass(frozen=True)
class Feeds:
    """All feeds, those that need somebody first; the files that are no feed, and why; the folder if it is not there."""

    feeds: list[dict[str, Any]]
    wrong: list[dict[str, str]]
    no_folder: Path | None


def feeds_of(connection: Connection, desk: Desk, kinds: Sequence[str]) -> Feeds:
    """The feeds of these kinds: what their files say they are, and what is remembered of them."""
    folder = desk.settings.feeds
    declared, errors = feeds.read_feeds(folder, loading.kinds())
    with transaction(connection) as cursor:
        known = {one["name"]: one for one in rows(cursor, _SQL["feeds"], {"kinds": list(kinds)})}
        moment = row(cursor, _SQL["today"])
    assert moment
    here = {feed.name: feed for feed in declared if feed.kind in kinds}
    wrong = [_wrong(error, folder) for error in errors]
    broken = {Path(one["name"]).stem for one in wrong}
    told = [_feed(here.get(name), known.get(name), name, moment["now"]) for name in sorted({*here, *known})]
    told = [one | {"broken": one["name"] in broken} for one in told]
    told.sort(key=lambda one: not (one["missing_since"] or one["held"] or one["trouble"] or one["broken"]))
    return Feeds(told, wrong, None if folder.is_dir() else folder)


def _wrong(error: Exception, folder: Path) -> dict[str, str]:
    """The name of the file that an error begins with, and the error without the folder."""
    message = str(error).replace(f"{folder}/", "")
    return {"name": message.partition(".yml")[0] + ".yml", "message": message}


def _feed(feed: Feed | None, known: Mapping[str, Any] | None, name: str, moment: datetime) -> dict[str, Any]:
    """One feed; ``there`` is false if only the database knows it."""
    known = known or {}
    says = feed or known
    said = {
        "name": name, "title": feed.title if feed else None, "there": feed is not None,
        "kind": says.kind if isinstance(says, Feed) else says["kind"],
        "domain": says.domain if isinstance(says, Feed) else says["domain"],
        "template": feed.template if feed else None,
    }  # fmt: skip
    asked = ("looked_at", "last_file_at", "missing_since", "trouble", "file_name", "seqno", "duplicate", "state",
             "records", "rejected")  # fmt: skip
    remembered = {one: known.get(one) for one in asked}
    return said | remembered | {"held": known.get("held", 0), "next_due": _next_due(feed, known, moment)}


def _next_due(feed: Feed | None, known: Mapping[str, Any], moment: datetime) -> datetime | None:
    if not feed or not feed.expected or not known or known["missing_since"]:
        return None
    since = max(filter(None, (known["since"], known["cleared_at"])))
    return cadence.next_due(feed.expected, moment, since, known["last_file_at"])


@dataclass(frozen=True)
class Days:
    """Numbers of batches and of records by outcome, for each day of a period, the newest first, and what was not sent."""

    days: list[dict[str, Any]]
    unsent: list[dict[str, Any]]


def days(connection: Connection, asked: Period, kinds: Sequence[str]) -> Days:
    """Run history, by the day of the upload; a day without batches has none."""
    since, all_days = _days(connection, asked)
    params = {"since": since, "kinds": list(kinds), "limit": MOST_UNSENT}
    with transaction(connection) as cursor:
        found = {one["day"]: one for one in rows(cursor, _SQL["days"], params)}
        unsent = rows(cursor, _SQL["unsent"], params)
    nothing = dict.fromkeys(
        ("batches", "failed", "cancelled", "unfinished", "records", *(str(outcome) for outcome in Outcome)), 0
    )
    return Days([found.get(day, {"day": day} | nothing) for day in reversed(all_days)], unsent)


@dataclass(frozen=True)
class Rejections:
    """What was kept out in a period.

    ``by_day`` of each entry are its records for each of ``days``; ``since`` is the day of the oldest batch looked at. A record counts once in ``feeds``, and once for each of
    its faults in ``reasons``, which are the costliest ``MOST_REASONS``.
    """

    days: list[date]
    since: date | None
    feeds: list[dict[str, Any]]
    reasons: list[dict[str, Any]]

    @property
    def of_batches(self) -> int:
        """How many batches were looked at."""
        return sum(one["batches"] for one in self.feeds)

    @property
    def of_records(self) -> int:
        """How many records these have."""
        return sum(one["of_records"] for one in self.feeds)

    @property
    def records(self) -> int:
        """How many of them were kept out."""
        return sum(one["records"] for one in self.feeds)


def rejections(connection: Connection, asked: Costs, kinds: Sequence[str]) -> Rejections:
    """Which rule, column, template and feed cost most records in a period."""
    since, all_days = _days(connection, asked)
    params = {
        "since": since, "kinds": list(kinds), "outcome": asked.outcome, "feed": asked.feed, "most": MOST,
        "limit": MOST_REASONS,
    }  # fmt: skip
    ended = sql.SQL(_SQL["ended"]).format(outcome=sql.Identifier(asked.outcome))
    with transaction(connection) as cursor:
        found = row(cursor, sql.SQL(_SQL["rejections"]).format(ended=ended), params)
    assert found
    by_feed, reasons = ([_counted(one, all_days) for one in found[part]] for part in ("feeds", "reasons"))
    return Rejections(all_days, found["since"], by_feed, reasons)


def _counted(one: dict[str, Any], all_days: Sequence[date]) -> dict[str, Any]:
    share = round(one["records"] / one["of_records"], 6) if one["of_records"] else None
    return one | {"share": share, "by_day": [one["by_day"].get(str(day), 0) for day in all_days]}


def _days(connection: Connection, asked: Period) -> tuple[datetime, list[date]]:
    """When a period begins, and its days, the oldest first."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["today"])
    assert found
    all_days = [found["today"] - timedelta(days=back) for back in reversed(range(asked.days))]
    return datetime.combine(all_days[0], datetime.min.time(), UTC), all_days
