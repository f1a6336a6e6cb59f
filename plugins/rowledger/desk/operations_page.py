"""The page Operations: what waits and runs now, feeds, which column of which partner costs most, how the days went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from rowledger.desk import operations_view, pages
from rowledger.desk.access import Needs, Right
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.operations_view import MOST, MOST_REASONS, Costs

router = APIRouter(prefix="/operations")
Kinds = Annotated[list[str], Depends(Needs(Right.READ))]
NEWEST_DAYS = 14  # that are shown at once
# At most, in pixels; bars begin and end at whole ones, so that they are sharp.
TREND_WIDTH, BAR_WIDTH, TREND_HEIGHT = 180, 12, 20


class Shown(Costs):
    """What the page is asked to show."""

    def query(self, **changed: object) -> str:
        """The query string that shows the same with something changed; None takes a part away."""
        defaults = {"days": 30, "outcome": "rejected", "feed": None}
        kept = {k: v for k, v in (self.model_dump() | changed).items() if v != defaults[k]}
        return urlencode(kept)


@router.get("")
def operations(
    request: Request, desk: DeskDep, kinds: Kinds, connection: ConnectionDep, asked: Annotated[Shown, Query()]
) -> Response:
    """The page."""
    return pages.page(
        request, "operations.html", asked=asked, trend=trend, most=MOST, most_reasons=MOST_REASONS, newest_days=NEWEST_DAYS,
        found=operations_view.now(connection, desk, kinds),
        feeds=operations_view.feeds_of(connection, desk, kinds),
        kept_out=operations_view.rejections(connection, asked, kinds),
        history=operations_view.days(connection, asked, kinds),
    )  # fmt: skip


@router.get("/now")
def now(
    request: Request,
    desk: DeskDep,
    kinds: Kinds,
    connection: ConnectionDep,
    seen: Annotated[str, Query(max_length=12, pattern="^[0-9a-f]*$")] = "",
) -> Response:
    """What an open page asks for again and again, if it has changed since."""
    found = operations_view.now(connection, desk, kinds)
    if found.version == seen:
        return pages.unchanged()
    return pages.page(request, "operations_now.html", found=found)


@dataclass(frozen=True)
class Trend:
    """Bars, one for each day: how large they are, the path that draws them, and the same in words."""

    width: int
    height: int
    path: str
    words: str


def trend(by_day: Sequence[int], days: Sequence[date]) -> Trend:
    """The numbers of days as bars; what is not nothing can be seen."""
    step, most = min(BAR_WIDTH, TREND_WIDTH // len(days)), max(by_day)
    bars = [
        f"M{place * step} {TREND_HEIGHT}v-{max(2, round(TREND_HEIGHT * count / most))}h{step - (step > 2)}V{TREND_HEIGHT}z"
        for place, count in enumerate(by_day) if count
    ]  # fmt: skip
    words = f"{sum(by_day):,} from {days[0]} to {days[-1]}" + (
        f", most on {days[by_day.index(most)]}: {most:,}" if most else ""
    )
    return Trend(step * len(days), TREND_HEIGHT, "".join(bars), words)
