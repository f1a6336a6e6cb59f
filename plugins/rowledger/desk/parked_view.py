"""What parked records wait for, as people and programs look at it; values of files only for those who may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from rowledger import parked
from rowledger.db import Connection
from rowledger.desk.access import MAX_SEQNO, Right, has
from rowledger.desk.batch_list import Text

MOST = 50


class Asked(BaseModel):
    """Which of the waiting records are looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Text = Field(default=None, description="only of this import kind")
    domain: Text = Field(default=None, description="only of this domain")
    seqno: Annotated[int | None, Field(ge=1, le=MAX_SEQNO, description="only of this import batch")] = None

    @property
    def query(self) -> str:
        """The query string that asks for the same."""
        given = {n: v for n in Asked.model_fields if (v := getattr(self, n)) is not None}
        return f"?{urlencode(given)}" if given else ""


@dataclass(frozen=True)
class Waiting:
    """The things that most records wait for, and how many there are in all, of things and of records."""

    groups: list[dict[str, Any]]
    groups_in_all: int
    records_in_all: int


def waiting(
    request: Request, connection: Connection, asked: Asked, kinds: Sequence[str], limit: int = MOST
) -> Waiting:
    """What records of these kinds wait for, most records first. Raises UnknownCode."""
    among = [kind for kind in kinds if asked.kind in (None, kind)]
    found = parked.groups(connection, None, asked.domain, limit, kinds=among, seqno=asked.seqno)
    groups, records = (int(found[0][name]) if found else 0 for name in ("all_groups", "all_records"))
    personal = {kind for kind in kinds if has(request, Right.PERSONAL, kind)}
    told = [{name: value for name, value in one.items() if not name.startswith("all_")} for one in found]
    return Waiting([one if one["kind"] in personal else one | {"key": None} for one in told], groups, records)
