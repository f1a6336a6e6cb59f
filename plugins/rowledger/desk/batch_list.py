"""Lists of batches: filter, search, sort, keyset pages, totals by group."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal

from psycopg2 import sql
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from rowledger.db import Connection, queries, row, rows, transaction
from rowledger.desk.problems import Refused
from rowledger.model import Batch

_SQL = queries("desk")
MAX_GROUPS = 100

Sort = Literal["seqno", "uploaded_at", "processed_at"]
Group = Literal["status", "kind", "domain", "template", "origin", "uploader", "day"]
Status = Literal["waiting", "in_progress", "paused", "executed", "succeeded", "failed", "cancelled"]

# Batches that have not ended are the last to end. A key and its type.
_KEYS = {"seqno": ("seqno", "bigint"), "uploaded_at": ("uploaded_at", "timestamptz"),
         "processed_at": ("ended_at", "timestamptz")}  # fmt: skip
# What briefs are counted by, what that is called, and where the name stands.
_GROUPS = {
    None: ("NULL::text", "key", ""),
    "status": ("state", "key", ""),
    "kind": ("template_id", "kind", "JOIN template_version ON template_id = key"),
    "domain": ("domain_id", "code", "JOIN domain ON domain_id = key"),
    "template": ("template_id", "name", "JOIN template_version ON template_id = key"),
    "origin": ("origins", "code", "LEFT JOIN unnest(key) AS origin_id ON true LEFT JOIN origin USING (origin_id)"),
    "uploader": ("uploaded_by", "key", ""),
    "day": ("day", "key::text", ""),
}  # fmt: skip


# How a batch that was executed went is said by its box.
_STATES = {"executed": ["succeeded", "failed"]}


def _text(value: str) -> str:
    if any(ord(c) < 32 for c in value):
        raise ValueError("control characters are not allowed")
    return value


def _none(value: Any) -> Any:
    """A form sends every field, the empty ones too."""
    return None if value == "" else value


Text = Annotated[
    str | None, Field(max_length=200), BeforeValidator(_none), AfterValidator(lambda v: v and _text(v))
]


class Filter(BaseModel):
    """Which batches are meant; what is left out means all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Text = None
    domain: Text = None
    template: Text = None
    status: Annotated[Status | None, BeforeValidator(_none)] = None
    origin: Text = None
    uploader: Text = None
    day: Annotated[date | None, BeforeValidator(_none)] = None
    q: Text = Field(default=None, description="a part of a file name or of an uploader's name, or a seqno")

    def given(self) -> dict[str, str]:
        """What is filtered by, as a query string would have it."""
        fields = Filter.model_fields
        return {name: str(value) for name in fields if (value := getattr(self, name)) is not None}


class Listing(Filter):
    """One page of a list."""

    sort: Sort = "seqno"
    order: Literal["asc", "desc"] = "desc"
    cursor: Text = Field(default=None, description="where to go on: next_cursor of the page before")
    limit: int = Field(default=50, ge=1, le=200)


@dataclass(frozen=True)
class Page:
    """Some batches, and the cursor of those that follow, if any do."""

    batches: list[Batch]
    next_cursor: str | None


def page(connection: Connection, asked: Listing, kinds: Sequence[str]) -> Page:
    """One page of the batches of these kinds. Raises Refused if the cursor is none."""
    key, of_type = _KEYS[asked.sort]
    place = _place(asked)
    descending = asked.order == "desc"
    beyond = f"({key}, seqno) {'<' if descending else '>'} (%(value)s::{of_type}, %(seqno)s)"
    direction = "DESC" if descending else "ASC"
    query = sql.SQL(_SQL["list"]).format(
        key=sql.SQL(key),
        chosen=sql.SQL(_SQL["chosen"]),
        beyond=sql.SQL(beyond if place else "true"),
        order=sql.SQL(f"{key} {direction}, seqno {direction}"),
        order_of_page=sql.SQL(f"place {direction}, seqno {direction}"),
    )
    params = _params(asked, kinds) | {"limit": asked.limit + 1} | (place or {})
    with transaction(connection) as cursor:
        found = rows(cursor, query, params)
    more = len(found) > asked.limit
    shown = found[: asked.limit]
    return Page([Batch.from_row(r) for r in shown], _cursor(asked, shown[-1]) if more else None)


@dataclass(frozen=True)
class Totals:
    """Numbers of batches and of their records by outcome: for each group, and for all together, if there are any.

    A batch with several origins counts for each of them, and once for all.
    """

    groups: list[dict[str, Any]]
    total: dict[str, Any] | None


def totals(connection: Connection, asked: Filter, kinds: Sequence[str], group: Group | None = None) -> Totals:
    """At most ``MAX_GROUPS`` groups, days the newest first; without a ``group`` one of all."""
    key, name, names = _GROUPS[group]
    query = sql.SQL(_SQL["totals"]).format(
        key=sql.SQL(key),
        chosen=sql.SQL(_SQL["chosen"]),
        group=sql.SQL(name),
        names=sql.SQL(names),
        sums=sql.SQL(_SQL["sums"]),
        order=sql.SQL('"group" DESC' if group == "day" else '"group"'),
    )
    with transaction(connection) as cursor:
        found = rows(cursor, query, _params(asked, kinds) | {"limit": MAX_GROUPS})
    told = [{name: value for name, value in one.items() if name != "is_group"} for one in found]
    return Totals(told[:-1], told[-1] if told[:-1] else None)


def some(connection: Connection, seqnos: Sequence[int], kinds: Sequence[str]) -> list[Batch]:
    """Certain batches of these kinds."""
    with transaction(connection) as cursor:
        return [Batch.from_row(r) for r in rows(cursor, _SQL["some"], {"seqnos": seqnos, "kinds": kinds})]


def newer(connection: Connection, seqno: int, kinds: Sequence[str]) -> int:
    """How many batches were uploaded after this one; at most a hundred are counted."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["newer"], {"seqno": seqno, "kinds": kinds})
    assert found
    return int(found["batches"])


def waiting_kinds(connection: Connection, kinds: Sequence[str]) -> list[str]:
    """The kinds of which batches wait."""
    with transaction(connection) as cursor:
        return sorted(r["kind"] for r in rows(cursor, _SQL["waiting_kinds"], {"kinds": kinds}))


def _params(asked: Filter, kinds: Sequence[str]) -> dict[str, Any]:
    q = asked.q
    number = int(q) if q and q.isascii() and q.isdigit() and len(q) < 19 else None
    like = "".join(f"\\{c}" if c in "\\%_" else c for c in q) if q else None
    states = _STATES.get(asked.status, [asked.status]) if asked.status else None
    return asked.model_dump(include=set(Filter.model_fields)) | {
        "states": states,
        "kinds": list(kinds),
        "number": number,
        "like": like and f"%{like}%",
    }


def _cursor(asked: Listing, last: dict[str, Any]) -> str:
    place = [asked.sort, last["sort_key"], last["seqno"]]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def behind(seqno: int) -> str:
    """The cursor of the batches older than one, in the order of their seqno."""
    return _cursor(Listing(), {"sort_key": seqno, "seqno": seqno})


def _place(asked: Listing) -> dict[str, Any] | None:
    """What a cursor says. It is not secret: one that somebody has made up leads to another place of the same list."""
    if asked.cursor is None:
        return None
    try:
        padded = asked.cursor + "=" * (-len(asked.cursor) % 4)
        sort, value, seqno = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if sort != asked.sort or not isinstance(seqno, int) or isinstance(seqno, bool) or abs(seqno) >= 2**63:
            raise ValueError
        checked = int(value) if sort == "seqno" else _moment(value)
        if isinstance(checked, int) and abs(checked) >= 2**63:
            raise ValueError
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Refused(
            422, "The cursor does not belong to this list; take the next_cursor of the page before."
        ) from None
    return {"value": str(checked), "seqno": seqno}


def _moment(value: Any) -> str:
    return "infinity" if value == "infinity" else datetime.fromisoformat(value).isoformat()
