"""What a feed can say: every key with its type, its default and, in its description, what it means.

The one place where keys are described; docs/feeds.md has the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Event = Literal["executed", "failed", "held", "missing"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DURATION = r"^[0-9]{1,5}[smhd]$"
Fault = tuple[tuple[int | str, ...], str]


def _says(description: str, default: Any = None, **rules: Any) -> Any:
    return Field(default=default, description=description, **rules)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def duration(text: str) -> timedelta:
    """``15m`` as a time span; s, m, h or d."""
    return timedelta(**{UNITS[text[-1]]: int(text[:-1])})


class Expected(_Part):
    """When a file is expected; all times are UTC. Either ``every`` or ``by``."""

    every: str | None = _says("a file at least every so long, such as `1d`, `12h` or `30m`", pattern=DURATION)
    by: str | None = _says(
        "a file until this time of the day, such as `06:00`", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
    )
    days: tuple[Day, ...] = _says(
        "with `by`: on these days only, such as `[mon, tue]`; left out: daily", DAYS
    )

    @property
    def faults(self) -> Iterator[Fault]:
        """What the shape of the model cannot say."""
        if (self.every is None) == (self.by is None):
            yield (), "says either every or by, such as every: 1d."
        if self.every and not duration(self.every):
            yield ("every",), "must be longer than nothing."
        if self.every and "days" in self.model_fields_set:
            yield ("days",), "is for by only."
        if not self.days:
            yield ("days",), "is empty; leave it out for every day."


class Unusual(_Part):
    """A batch far from the feed's last ones is held after ``validate``, until a person approves or refuses it.

    *Usual* is the median of the last batches that went through; with fewer than three of them nothing is held.
    """

    batches: int = _says("how many of the last batches say what is usual", 10, ge=3, le=100)
    fewer_records: float | None = _says(
        "held with fewer records than this times the usual number, such as `0.5`", gt=0, lt=1
    )
    more_records: float | None = _says(
        "held with more records than this times the usual number, such as `2`", gt=1
    )
    more_rejected: float | None = _says(
        "held if the share of rejected records (0 to 1) is above the usual one by more than this", gt=0, lt=1
    )
    more_churn: float | None = _says(
        "contract statuses only: held with more churn statuses than this times the usual number", gt=1
    )

    @property
    def limits(self) -> dict[str, float]:
        """What is limited, and how."""
        return self.model_dump(exclude_none=True)


class Webhook(_Part):
    """Where a signed message is sent."""

    url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$", description="takes POST requests with JSON")
    secret: str = Field(
        pattern=r"^[A-Za-z0-9_.-]{1,200}$",
        description="the id of an Airflow connection whose password signs the message",
    )


class Tell(_Part):
    """Who is told of what."""

    of: tuple[Event, ...] = _says("what people are told of", ("failed", "held", "missing"))
    mail: tuple[str, ...] = _says("mail addresses; sent through Airflow's connection `smtp_default`", ())
    webhook: Webhook | None = _says("a program that is told")


class Feed(_Part):
    """Files that come again and again: where from, what they are, and what is expected of them."""

    name: str
    title: str = Field(min_length=1, description="what people read in lists")
    place: str = Field(
        min_length=1,
        description="a folder, from `ROWLEDGER_HOME` unless it begins with `/`; or `s3://connection@bucket/folder`, "
        "`sftp://connection@/folder` and the like, by an Airflow connection",
    )
    pattern: str = Field(
        min_length=1,
        description="which names are taken, such as `results_*.csv`: `*` any letters, `?` one, `[ab]` one of these",
    )
    kind: str = Field(description="the import kind")
    domain: str = Field(min_length=1, description="the code of the domain")
    template: str = Field(min_length=1, description="the name of the import template")
    origins: tuple[str, ...] = _says("contacts only: origins for every contact", ())
    subscriptions: tuple[str, ...] = _says("contacts only: lists to opt every contact in to", ())
    priority: int = _says("feeds with a greater one are looked at first, so that their files come first", 0)
    settled_after: str = _says(
        "a file is taken when size and time stay the same for so long; `0s` where files are renamed into place",
        "10s",
        pattern=DURATION,
    )
    then: Literal["move", "mark", "delete"] = _says(
        "what becomes of a file that was taken: moved away, left and remembered, or deleted", "move"
    )
    move_to: str = _says("with `then: move`: a folder in the place", "taken", min_length=1)
    expected: Expected | None = _says("when a file is expected; left out: never missed")
    unusual: Unusual = _says("which batches are held; left out: none", Unusual())
    tell: Tell | None = _says("who is told; left out: whom `domains.yml` names for the domain")

    @property
    def remote(self) -> bool:
        """Whether the place is reached through Airflow."""
        return "://" in self.place

    @property
    def who(self) -> str:
        """How the feed is called in events of batches."""
        return f"feed {self.name}"

    @property
    def faults(self) -> Iterator[Fault]:
        """What the shape of the model cannot say."""
        if "/" in self.pattern:
            yield ("pattern",), "is for names in one folder, without /; say the folder in place."
        parts = re.split(r"[/\\]", self.move_to)
        if any(part in ("", ".", "..") for part in parts):
            yield ("move_to",), "must be a folder in the place, such as taken."
        for loc, fault in self.expected.faults if self.expected else ():
            yield ("expected", *loc), fault
        if self.kind != "contract_status" and self.unusual.more_churn is not None:
            yield ("unusual", "more_churn"), "is for contract_status only."
        if self.kind != "contact":
            for key in ("origins", "subscriptions"):
                if getattr(self, key):
                    yield (key,), f"is not for {self.kind}; only contacts have {key}."
