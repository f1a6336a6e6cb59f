"""The nouns that travel between stations: frozen, without I/O. Words are those of the ledger (see README)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class BatchStatus(StrEnum):
    """Where a batch stands: waiting, in progress, executed; paused or cancelled by a person."""

    WAITING = "waiting"
    IN_PROGRESS = "in_progress"
    EXECUTED = "executed"
    PAUSED = "paused"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (BatchStatus.EXECUTED, BatchStatus.CANCELLED)


class Outcome(StrEnum):
    """What became of one record. Every record of every file has exactly one."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    HISTORIC = "historic"
    IGNORED = "ignored"
    PARKED = "parked"
    REJECTED = "rejected"
    UNPROCESSED = "unprocessed"


@dataclass(frozen=True)
class Reason:
    """Why a record was rejected or warned about: a stable rule word, the user's column, the value, a sentence."""

    rule: str
    column: str | None
    value: str | None
    message: str

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


@dataclass(frozen=True)
class Reject:
    """One record that will not be loaded, with all its reasons and its raw cells."""

    record_no: int
    reasons: tuple[Reason, ...]
    raw: tuple[str, ...]
    warnings: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class TargetField:
    """A field of an import kind that a template column can fill.

    ``sql_type`` is the type of the staging column; ``types`` are the template types that may feed it. The values of a
    field with a ``reference`` must be in that list of the domain, such as "@origins", whatever the template says; they
    are added to what is there.
    """

    name: str
    sql_type: str
    types: tuple[str, ...]
    title: str
    reference: str | None = None


@dataclass(frozen=True)
class Kind:
    """An import kind, declared by its loader module.

    ``required_fields`` must be mapped by every template of the kind; ``match_keys`` are the fields that can
    find a target row, in their default order; ``policies`` are the template policies that mean something here. With
    ``attributes``, columns of any type may also fill fields that nobody declared, ``attributes.NAME``.
    """

    name: str
    title: str
    fields: tuple[TargetField, ...]
    required_fields: tuple[str, ...]
    match_keys: tuple[str, ...]
    policies: tuple[str, ...]
    attributes: bool = False

    def field(self, name: str) -> TargetField:
        return next(field for field in self.fields if field.name == name)


@dataclass(frozen=True)
class Part:
    """A range of the records of a huge file that a task of its own works at (table ``import_batch_part``).

    ``number`` counts from 1; ``validated`` is the last record with a verdict, None before the first.
    """

    number: int
    of: int
    epoch: int
    attempts: int
    validated: int | None

    def left(self, records: int) -> tuple[int, int]:
        """What is left to validate of a file of so many records: those above the first number, up to the second."""
        first, last = (records * place // self.of for place in (self.number - 1, self.number))
        return first if self.validated is None else self.validated, last


@dataclass(frozen=True)
class Batch:
    """One uploaded file and how far its import has come (table ``import_batch``).

    ``parts`` is in how many it is worked; ``part`` is the one that a worker has claimed, None for the whole.
    """

    seqno: int
    parent_seqno: int | None
    kind: str
    domain: str
    domain_id: int
    template: str
    template_hash: str
    suite_hash: str
    file_name: str
    file_path: str
    file_bytes: int
    file_sha256: str
    uploaded_by: str
    uploaded_through: str
    uploaded_at: datetime
    status: BatchStatus
    epoch: int
    import_completed: bool
    processed: bool
    columns: dict[str, str]
    error_rule: str | None
    error_message: str | None
    warnings: list[dict[str, str | None]]
    started_at: datetime | None
    processed_at: datetime | None
    validated_at: datetime | None
    run_id: str | None
    records_in_file: int | None
    parts: int
    validated_records: int
    staged_records: int
    loaded_records: int
    attempts: int
    waits_because: str | None
    rolled_back_at: datetime | None
    counts: dict[str, int]
    part: Part | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Batch:
        values = {
            name: row[name] for name in cls.__dataclass_fields__ if name not in ("status", "counts", "part")
        }
        return cls(
            **values,
            status=BatchStatus(row["status"]),
            counts={str(outcome): row[str(outcome)] for outcome in Outcome},
        )

    @property
    def label(self) -> str:
        return f"#{self.seqno} {self.file_name}"

    @property
    def done_records(self) -> int:
        """How many records have a verdict; once all have one, how many have an outcome."""
        if self.validated_at is None:
            return self.validated_records
        return (self.records_in_file or 0) - self.staged_records + self.loaded_records

    @property
    def reached(self) -> str:
        """How far it is, in words; of a file that is worked in parts there is no last record."""
        return f"record {self.done_records:,}" if self.parts == 1 else f"{self.done_records:,} records"

    @property
    def succeeded(self) -> bool:
        return self.status is BatchStatus.EXECUTED and self.import_completed and self.processed

    @property
    def stopped(self) -> bool:
        """Whether nobody may go on with it, for now or for good."""
        return self.status is BatchStatus.PAUSED or self.status.terminal

    @property
    def failed(self) -> bool:
        return self.status is BatchStatus.EXECUTED and not self.succeeded

    def as_dict(self) -> dict[str, Any]:
        """What is shown to people and programs; some fields are internals."""
        shown = {  # not asdict(), which copies everything inside and makes long lists slow
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("domain_id", "file_path", "epoch", "attempts", "part")
        }
        return shown | {
            "status": str(self.status),
            "counts": {outcome: count for outcome, count in self.counts.items() if count},
        }
