"""Reference data: domains, phases, statuses, contracts, origins, subscriptions and value lists, from one YAML file.

Loading a file twice changes nothing; what it names is created or brought up to date, what it leaves out stays.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psycopg2.extras
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.errors import SetupError

_SQL = queries("reference")

# Active origins; mailing lists that can be chosen; all mailing lists. The names of other lists never begin with @.
DOMAIN_LISTS = ("@origins", "@subscriptions", "@lists")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Phase(_Part):
    """Groups contract statuses for reporting."""

    code: str
    description: str


class Status(_Part):
    """A result code of the domain, in one of its phases."""

    code: str
    phase: str
    description: str
    initial: bool = False
    definitive: bool = False
    churn: bool = False
    automatic_after_days: int | None = Field(default=None, gt=0)


class Contract(_Part):
    """A contract, known by its form id within the domain."""

    form_id: str = Field(min_length=1, max_length=255)
    sign_up_date: datetime.date


class Origin(_Part):
    """A campaign that contacts come from."""

    code: str
    name: str
    active: bool = True


class Subscription(_Part):
    """A mailing list."""

    list_id: str
    name: str
    type: Literal["email", "mail", "fax", "phone", "mobile"]
    display_sequence: int = 0
    disabled: bool = False


class Domain(_Part):
    """An organisation and what belongs to it; codes are unique within it."""

    code: str
    name: str
    phases: tuple[Phase, ...] = ()
    statuses: tuple[Status, ...] = ()
    contracts: tuple[Contract, ...] = ()
    origins: tuple[Origin, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()


class Reference(_Part):
    """A whole reference file: domains with what belongs to them, and named lists of values for templates."""

    domains: tuple[Domain, ...] = ()
    lists: dict[str, tuple[str, ...]] = {}


def read(path: Path) -> Reference:
    """Read and check a reference file. Raises SetupError with file and place."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe
        return Reference.model_validate(data)
    except OSError as error:
        raise SetupError(f"{path} cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SetupError(f"{path}{line}: is not valid YAML.") from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in problem["loc"])
        raise SetupError(
            f"{path}, {place or 'top'}: {problem['msg']}, not {str(problem['input'])[:80]!r}."
        ) from None


def load(connection: Connection, reference: Reference) -> dict[str, int]:
    """Bring the database up to date with a reference file; returns how many rows of each sort were written."""
    with transaction(connection) as cursor:
        written = {"domains": 0, "phases": 0, "statuses": 0, "contracts": 0, "origins": 0, "subscriptions": 0}
        for domain in reference.domains:
            _load_domain(cursor, domain, written)
        values = [
            (name, value) for name, listed in reference.lists.items() for value in dict.fromkeys(listed)
        ]
        written["list values"] = _write(cursor, "values", values, {})
    return written


def _load_domain(cursor: Cursor, domain: Domain, written: dict[str, int]) -> None:
    found = row(cursor, _SQL["domain"], {"code": domain.code, "name": domain.name})
    assert found
    written["domains"] += 1
    here = {"domain_id": found["domain_id"]}
    phases = [(phase.code, phase.description) for phase in domain.phases]
    written["phases"] += _write(cursor, "phases", phases, here)
    _refuse_unknown_phases(cursor, domain, here)
    statuses = [
        (s.code, s.phase, s.description, s.initial, s.definitive, s.churn, s.automatic_after_days)
        for s in domain.statuses
    ]
    written["statuses"] += _write(cursor, "statuses", statuses, here)
    contracts = [(contract.form_id, contract.sign_up_date) for contract in domain.contracts]
    written["contracts"] += _write(cursor, "contracts", contracts, here)
    cursor.execute(_SQL["initial_history"], here)
    cursor.execute(_SQL["initial_status"], here)
    written["origins"] += _write(
        cursor, "origins", [(o.code, o.name, o.active) for o in domain.origins], here
    )
    subscriptions = [
        (s.list_id, s.name, s.type, s.display_sequence, s.disabled) for s in domain.subscriptions
    ]
    written["subscriptions"] += _write(cursor, "subscriptions", subscriptions, here)


def _refuse_unknown_phases(cursor: Cursor, domain: Domain, here: Mapping[str, Any]) -> None:
    known = {r["code"] for r in rows(cursor, _SQL["phase_codes"], here)}
    for status in domain.statuses:
        if status.phase not in known:
            raise SetupError(
                f"Domain {domain.code}, status {status.code}: there is no phase {status.phase!r}; "
                f"phases are {', '.join(sorted(known)) or 'none'}."
            )


def _write(cursor: Cursor, name: str, lines: list[tuple[Any, ...]], here: Mapping[str, Any]) -> int:
    """Upsert many rows with one statement per thousand."""
    if lines:
        statement = cursor.mogrify(_SQL[name].replace("VALUES_HERE", "%%s"), here).decode()
        psycopg2.extras.execute_values(cursor, statement, lines, page_size=1000)
    return len(lines)


def value_lists(connection: Connection, names: list[str], domain_id: int) -> dict[str, list[str]]:
    """The values of the named lists; of ``DOMAIN_LISTS`` those of the domain, which may be none.

    Raises SetupError if another list does not exist.
    """
    with transaction(connection) as cursor:
        found: dict[str, list[str]] = {name: [] for name in names}
        for r in rows(cursor, _SQL["value_lists"], {"names": names, "domain_id": domain_id}):
            if r["list_name"] in found:
                found[r["list_name"]].append(r["value"])
    for name, listed in found.items():
        if not listed and name not in DOMAIN_LISTS:
            raise SetupError(
                f'The template refers to the list "{name}", which is empty; load it with load-reference.'
            )
    return found
