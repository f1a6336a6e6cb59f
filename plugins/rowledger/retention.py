"""How long what batches leave behind is kept, by domain: ``include/retention.yml`` -> days. Without a file: for ever.

    others: {staging: 30, upload_keys: 30}
    domains:
      DEMO: {files: 400, cells: 90, ledger: 1100, history: 2500}

Days are counted from the end of a batch; from its own day for an entry of a ``history``, from its use for an
``upload_key``. What a domain does not mention is as for
``others``; what those do not mention either is kept for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rowledger import yaml_in
from rowledger.errors import SetupError

_Days = Annotated[int, Field(ge=1, le=36_500, strict=True)] | Literal["forever"]


class Days(BaseModel):
    """For how many days uploaded files, cells of refused records, staging of failed batches, records of the ledger,
    entries of histories and Idempotency-Keys are kept, and parked records may wait."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: _Days = "forever"
    cells: _Days = "forever"
    staging: _Days = "forever"
    ledger: _Days = "forever"
    history: _Days = "forever"
    parked: _Days = "forever"
    upload_keys: _Days = "forever"


class Retention(BaseModel):
    """The days of each domain that is named, and of all others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    others: Days = Days()
    domains: dict[str, Days] = {}

    def days(self, domain: str, what: str) -> int | None:
        """For how many days something is kept in a domain; None is for ever. Cells and staging go with the ledger."""
        said = [
            self._said(domain, one) for one in ((what, "ledger") if what in ("cells", "staging") else (what,))
        ]
        return min((int(days) for days in said if days != "forever"), default=None)

    def _said(self, domain: str, what: str) -> int | str:
        own = self.domains.get(domain)
        days: int | str = getattr(own if own and what in own.model_fields_set else self.others, what)
        return days


def read(path: Path) -> Retention:
    """What the file says; without a file everything is kept. Raises SetupError."""
    if not path.exists():
        return Retention()
    try:
        data = yaml_in.data(yaml_in.tree(yaml_in.text_of(path)))
        return Retention.model_validate({} if data is None else data)
    except yaml_in.WrongYaml as error:
        raise SetupError(f"{path}{error}") from None
    except ValidationError as error:
        raise SetupError(f"{path}: {_words(error)}") from None


def _words(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"] if str(part) not in ("int", "constrained-int"))
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a known key; known are: others, domains, and in them {', '.join(Days.model_fields)}."
    if place.rpartition(".")[2] in Days.model_fields:
        return f"{place} must be a number of days from 1 to 36,500, or forever, not {problem['input']!r}."
    return f"{place or 'the file'} must be a mapping, such as: others: {{files: 400}}"
