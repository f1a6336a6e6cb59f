"""Where batches are: in a database at hand, or at a desk far away. Commands ask a ``Place`` and do not know which it is."""

from __future__ import annotations

import contextlib
import functools
import getpass
import io
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import typer

from rowledger import (
    batches,
    control,
    giving_up,
    ledger,
    parked,
    pipeline,
    replay,
    reruns,
    roll_back,
    uploads,
)
from rowledger.cli.terminal import database, find_template, from_environment, options
from rowledger.client import Client, RemoteBatch
from rowledger.db import Connection
from rowledger.errors import FileError, NotPossible, SetupError, Stopped
from rowledger.giving_up import Thing
from rowledger.layouts import header_of
from rowledger.model import Batch, BatchStatus
from rowledger.roll_back import RollBack
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate

COMMONEST = 20  # reasons


class Version(StrEnum):
    """Which version of a batch's template."""

    OLD = "old"
    CURRENT = "current"


@dataclass(frozen=True)
class Asked:
    """As what files are uploaded."""

    kind: str
    domain: str
    template: str
    origins: Sequence[str]
    subscriptions: Sequence[str]
    again: bool


@dataclass(frozen=True)
class About:
    """What is shown beside a batch. Reasons have rule, column, records, first_record and example, the commonest first."""

    reasons: list[dict[str, Any]]
    events: list[dict[str, Any]]
    children: list[int]
    replayed: dict[str, int]
    roll_back: RollBack | None


class Place(Protocol):
    """What commands ask of batches. Every method raises what ``errors`` has for it."""

    def submit(self, file: Path, asked: Asked) -> tuple[int, str]:
        """Upload a file; its seqno, and what it is called."""

    def listed(self, kind: str | None, status: str | None, before: int | None, limit: int) -> Sequence[Batch]:
        """Batches, the newest first."""

    def waiting(self) -> list[int]:
        """The seqnos of the batches that wait, the oldest first."""

    def batch(self, seqno: int) -> Batch:
        """One batch."""

    def about(self, seqno: int) -> About:
        """What is shown beside a batch."""

    def rolled_back(self, seqno: int) -> RollBack | None:
        """Its roll back, if anybody has asked for it."""

    def records(
        self, seqno: int, outcomes: list[str] | None, record: int | None, rolled_back: str | None
    ) -> Generator[dict[str, Any]]:
        """The ledger of a batch."""

    def rejects(self, seqno: int, out: BinaryIO) -> int:
        """Write the rejected records in the layout of their file; how many there are."""

    def work(self, seqno: int) -> None:
        """Have a batch worked off, and be there when it ends."""

    def replay(self) -> list[tuple[Batch, Counter[str]]]:
        """Replay parked records that are due."""

    def parked(self, kind: str | None, domain: str | None, limit: int) -> list[dict[str, Any]]:
        """What parked records wait for, most records first."""

    def pause(self, seqno: int, why: str) -> Batch:
        """Stop work on a batch."""

    def resume(self, seqno: int, why: str) -> Batch:
        """Let it wait for the next run."""

    def cancel(self, seqno: int, why: str) -> Batch:
        """End it where it is."""

    def give_up(self, seqno: int, thing: Thing | None, why: str) -> int:
        """Wait no longer for what its parked records wait for; how many that were."""

    def give_up_thing(self, kind: str, domain: str, thing: Thing, why: str) -> dict[int, int]:
        """Wait no longer for a thing in all batches that have ended; for each, how many records that were."""

    def roll_back(self, seqno: int, why: str) -> RollBack:
        """Take back what it has written, or have that done."""

    def reprocess(self, seqno: int, version: Version) -> tuple[Batch, Batch]:
        """Take its file once more; the batch and its child."""

    def rerun(self, seqno: int, version: Version, mended: Path | None) -> tuple[Batch, Batch]:
        """Take its rejected records once more; the batch and its child."""


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """The desk that ``--url`` names, or else the database."""
    if options.url:
        yield There(_client(options.url))
    else:
        settings = from_environment()
        with database(settings) as connection:
            yield Here(connection, settings)


def _client(url: str) -> Client:
    """A desk, with what the environment says of who speaks to it; never from arguments, which others can read."""
    if token := os.environ.get("ROWLEDGER_TOKEN"):
        return Client(url, token)
    user, password = os.environ.get("ROWLEDGER_USER", ""), os.environ.get("ROWLEDGER_PASSWORD", "")
    if user and not password and sys.stdin.isatty():
        password = typer.prompt(f"Password of {user}", hide_input=True, err=True)
    if not user or not password:
        raise SetupError(
            "A desk needs ROWLEDGER_TOKEN, or ROWLEDGER_USER and ROWLEDGER_PASSWORD, in the environment."
        )
    return Client(url, user=user, password=password)


class Here:
    """The database at hand."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection, self._settings, self._by = connection, settings, getpass.getuser()
        self._chosen = functools.cache(self._template)

    @property
    def _worker(self) -> pipeline.Worker:
        return pipeline.Worker(self._connection, self._settings, self._by)

    def submit(self, file: Path, asked: Asked) -> tuple[int, str]:
        chosen, suite_hash = self._chosen(asked.template, asked.kind)
        upload = uploads.keep_file(file, self._settings.uploads)
        seqno = batches.register(
            self._connection, upload, chosen, suite_hash, asked.domain, origins=asked.origins,
            subscriptions=asked.subscriptions, by=self._by, through="command line", again=asked.again,
        )  # fmt: skip
        return seqno, upload.file_name

    def listed(self, kind: str | None, status: str | None, before: int | None, limit: int) -> Sequence[Batch]:
        return batches.listed(self._connection, kind, status, before, limit)

    def waiting(self) -> list[int]:
        return batches.waiting(self._connection)

    def batch(self, seqno: int) -> Batch:
        return batches.get(self._connection, seqno)

    def about(self, seqno: int) -> About:
        return About(
            ledger.common_reasons(self._connection, seqno, ledger.NOT_LOADED, COMMONEST),
            batches.events(self._connection, seqno),
            batches.children(self._connection, seqno),
            parked.became(self._connection, seqno),
            self.rolled_back(seqno),
        )

    def rolled_back(self, seqno: int) -> RollBack | None:
        return roll_back.of(self._connection, seqno)

    def records(
        self, seqno: int, outcomes: list[str] | None, record: int | None, rolled_back: str | None
    ) -> Generator[dict[str, Any]]:
        self.batch(seqno)
        batches.refuse_removed_records(self._connection, seqno)
        return ledger.records(self._connection, seqno, outcomes, record, rolled_back)

    def rejects(self, seqno: int, out: BinaryIO) -> int:
        batches.refuse_removed_cells(self._connection, seqno)
        batch = self._with_raw_cells(seqno)
        file = (template := pipeline.template_of(self._connection, batch)).file
        header = self._header(batch, template) if file.header else ()
        text = io.TextIOWrapper(out, file.encoding, "xmlcharrefreplace", "")
        try:
            return ledger.export_rejects(self._connection, batch, template, header, text)
        finally:
            text.detach()

    def _header(self, batch: Batch, template: ImportTemplate) -> Iterable[str]:
        with self._worker.file(batch) as path:
            return header_of(path, template, self._settings.scratch)

    def work(self, seqno: int) -> None:
        pipeline.work(self._worker, seqno)

    def replay(self) -> list[tuple[Batch, Counter[str]]]:
        return [(self.batch(seqno), done) for seqno, done in replay.replay(self._worker).items()]

    def parked(self, kind: str | None, domain: str | None, limit: int) -> list[dict[str, Any]]:
        return parked.groups(self._connection, kind, domain, limit)

    def pause(self, seqno: int, why: str) -> Batch:
        return control.pause(self._connection, seqno, by=self._by, why=why)

    def resume(self, seqno: int, why: str) -> Batch:
        return control.resume(self._connection, seqno, by=self._by, why=why)

    def cancel(self, seqno: int, why: str) -> Batch:
        return control.cancel(self._connection, seqno, by=self._by, why=why)

    def give_up(self, seqno: int, thing: Thing | None, why: str) -> int:
        return giving_up.give_up(self._connection, seqno, by=self._by, why=why, thing=thing)

    def give_up_thing(self, kind: str, domain: str, thing: Thing, why: str) -> dict[int, int]:
        return giving_up.give_up_thing(self._connection, kind, domain, thing, by=self._by, why=why)

    def roll_back(self, seqno: int, why: str) -> RollBack:
        roll_back.ask(self._connection, seqno, by=self._by, why=why)
        return roll_back.work(self._worker, seqno)

    def reprocess(self, seqno: int, version: Version) -> tuple[Batch, Batch]:
        batch = self.batch(seqno)
        chosen, suite_hash = self._version(batch, version)
        new = reruns.reprocess(
            self._connection, batch, chosen, suite_hash, by=self._by, through="command line"
        )
        return batch, self.batch(new)

    def rerun(self, seqno: int, version: Version, mended: Path | None) -> tuple[Batch, Batch]:
        batch = self._with_raw_cells(seqno)
        chosen, suite_hash = self._version(batch, version)
        kept = uploads.keep_file(mended, self._settings.uploads) if mended else None
        new = reruns.rerun(
            self._connection, self._settings, batch, chosen, suite_hash, kept, by=self._by, through="command line"
        )  # fmt: skip
        return batch, self.batch(new)

    def _version(self, batch: Batch, version: Version) -> tuple[ImportTemplate, str]:
        """A version of the batch's template, and the hash of its suite."""
        if version is Version.OLD:
            return pipeline.template_of(self._connection, batch), batch.suite_hash
        return self._chosen(batch.template, batch.kind)

    def _template(self, name: str, kind: str) -> tuple[ImportTemplate, str]:
        chosen = find_template(self._settings, name, kind)
        from rowledger.suites import suite_hash

        return chosen, suite_hash(chosen)

    def _with_raw_cells(self, seqno: int) -> Batch:
        """The batch; one that ended before its close gets the cells of its refused records first."""
        batch = self.batch(seqno)
        if batch.status.terminal and not batch.processed and ledger.lacks_raw(self._connection, batch):
            pipeline.complete_raw(self._worker, seqno)
        return batch


class There:
    """A desk, by its API."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._started: set[str] = set()
        self._waited: set[int] = set()

    def submit(self, file: Path, asked: Asked) -> tuple[int, str]:
        batch = self._client.upload(
            file, asked.kind, asked.domain, asked.template, origins=asked.origins,
            subscriptions=asked.subscriptions, again=asked.again,
        )  # fmt: skip
        return batch.seqno, batch.file_name

    def listed(self, kind: str | None, status: str | None, before: int | None, limit: int) -> Sequence[Batch]:
        return list(self._client.batches(limit, kind=kind, status=status, before=before))

    def waiting(self) -> list[int]:
        self._waited = {batch.seqno for batch in self._client.batches(status="waiting")}
        return sorted(self._waited)

    def batch(self, seqno: int) -> RemoteBatch:
        return self._client.batch(seqno)

    def about(self, seqno: int) -> About:
        batch, reasons = self.batch(seqno), _commonest(self._client.reasons(seqno))
        events = self._client.events(seqno)
        return About(reasons, events, batch.children, batch.replayed, _roll_back(batch))

    def rolled_back(self, seqno: int) -> RollBack | None:
        return _roll_back(self.batch(seqno))

    def records(
        self, seqno: int, outcomes: list[str] | None, record: int | None, rolled_back: str | None
    ) -> Generator[dict[str, Any]]:
        self.batch(seqno)
        return self._client.records(seqno, outcome=outcomes, record=record, rolled_back=rolled_back)

    def rejects(self, seqno: int, out: BinaryIO) -> int:
        self._client.download(seqno, "rejects.csv", out)
        batch = self.batch(seqno)
        return batch.counts["rejected"] + sum(batch.replayed.get(one, 0) for one in ledger.TO_MEND)

    def work(self, seqno: int) -> None:
        """A run of the desk's engine works it off; one is started for each kind that has something waiting."""
        batch = self.batch(seqno)
        if batch.failed and seqno not in self._waited:
            raise NotPossible(
                f"Import batch {seqno} has failed. A desk does not open it again; reprocess it."
            )
        if batch.status is BatchStatus.WAITING and batch.kind not in self._started:
            self._started.add(batch.kind)
            self._client.run_now(batch)
        batch = self._client.wait(seqno)
        if batch.status in (BatchStatus.PAUSED, BatchStatus.CANCELLED):
            raise Stopped(f"Import batch {seqno} is {batch.status}.")
        if batch.failed and batch.error_rule in ("set_up", "worker_lost"):
            raise SetupError(batch.error_message)
        if batch.failed:
            raise FileError(batch.error_rule or "", batch.error_message or "")

    def replay(self) -> list[tuple[Batch, Counter[str]]]:
        """Every run does it."""
        return []

    def parked(self, kind: str | None, domain: str | None, limit: int) -> list[dict[str, Any]]:
        return self._client.parked(kind, domain, limit=limit)

    def pause(self, seqno: int, why: str) -> Batch:
        return self._client.pause(seqno, why)

    def resume(self, seqno: int, why: str) -> Batch:
        return self._client.resume(seqno, why)

    def cancel(self, seqno: int, why: str) -> Batch:
        return self._client.cancel(seqno, why)

    def give_up(self, seqno: int, thing: Thing | None, why: str) -> int:
        return self._client.give_up(seqno, why, **vars(thing) if thing else {}).given_up

    def give_up_thing(self, kind: str, domain: str, thing: Thing, why: str) -> dict[int, int]:
        return self._client.give_up_thing(kind, domain, thing.waits_for, thing.key, why)

    def roll_back(self, seqno: int, why: str) -> RollBack:
        self._client.roll_back(seqno, why)
        asked = self.rolled_back(seqno)
        assert asked
        return asked

    def reprocess(self, seqno: int, version: Version) -> tuple[Batch, Batch]:
        batch = self.batch(seqno)
        return batch, self._client.reprocess(batch, version)

    def rerun(self, seqno: int, version: Version, mended: Path | None) -> tuple[Batch, Batch]:
        batch = self.batch(seqno)
        return batch, self._client.rerun(batch, mended, version)


def _roll_back(batch: RemoteBatch) -> RollBack | None:
    if batch.roll_back is None:
        return None
    times = {
        name: datetime.fromisoformat(at)
        for name in ("asked_at", "finished_at")
        if (at := batch.roll_back[name])
    }
    return RollBack(**batch.roll_back | times)


def _commonest(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The reasons of all outcomes together, as the database tells them."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for one in told:
        place = (one["rule"], one["column"])
        same = found.setdefault(
            place,
            {"rule": one["rule"], "column": one["column"], "records": 0, "first_record": "", "example": ""},
        )
        same["records"] += one["records"]
        for example in one.get("examples", ())[:1]:  # without the right on personal data there are none
            if not same["example"] or example["record_no"] < same["first_record"]:
                same |= {"first_record": example["record_no"], "example": example["message"]}
    ordered = sorted(
        found.values(), key=lambda one: (-one["records"], one["rule"], one["column"] is None, one["column"])
    )
    return ordered[:COMMONEST]
