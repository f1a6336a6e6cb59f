"""The life of a batch: register, reserve, claim (the fence), reopen, wait, finish, fail.

A claim raises the batch's epoch. Every later transaction of the worker begins with ``hold`` or ``hold_shared``, which
checks that the epoch is still the worker's; the loser of a take-over gets ``Fenced`` and has written nothing.

The fence is an advisory lock of the transaction. Whatever changes a batch takes it alone and first of all; the lanes of
a load share it, so that they do not wait for each other, and nobody changes the batch while one of them writes.

Whoever wants a batch waits for the chunk that is being written, but not for a worker that is stopped in the middle of
one: its session is ended once it has said nothing for a lease.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rowledger import domains, staging
from rowledger.db import Connection, Cursor, queries, row, rows, savepoint, transaction
from rowledger.errors import (
    DuplicateUpload,
    Fenced,
    KeyReused,
    NotPossible,
    SetupError,
    Stopped,
    TryAgain,
    UnknownCode,
)
from rowledger.model import Batch, BatchStatus, Outcome, Reason
from rowledger.templates import ImportTemplate
from rowledger.uploads import Upload, in_a_store

_SQL = queries("batches")
log = logging.getLogger("rowledger")
CLAIM_TRIES = 10  # of three seconds each


@dataclass(frozen=True)
class RequestKey:
    """What a program calls its upload, so that sending it once more makes no second batch.

    ``fingerprint`` stands for all that was sent: with another one the key is refused.
    """

    by: str
    key: str
    fingerprint: str


def register(
    connection: Connection,
    upload: Upload,
    template: ImportTemplate,
    suite_hash: str,
    domain: str,
    *,
    origins: Collection[str] = (),
    subscriptions: Collection[str] = (),
    by: str,
    through: str,
    again: bool = False,
    parent_seqno: int | None = None,
    event: str = "reprocessed",
    seqno: int | None = None,
    key: RequestKey | None = None,
    also: Callable[[Cursor, int], None] | None = None,
) -> int:
    """Make a waiting batch of an upload; returns its seqno. Raises UnknownCode, DuplicateUpload or KeyReused.

    ``parent_seqno`` is the batch whose records are taken once more, which is an ``event`` of that batch. A ``seqno`` is
    chosen by dry runs only. An upload with a ``key`` that was sent before is the batch that it became then. ``also``
    belongs to the same transaction.
    """
    with transaction(connection) as cursor:
        sent = key and _sent_before(cursor, key)
        if sent:
            return sent
        domain_id = _chosen(cursor, template, domain, origins, subscriptions)
        if not again:  # two uploads of one file at once must not both believe to be the first
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, %s))", (upload.sha256, domain_id)
            )
        cursor.execute(
            _SQL["keep_template"],
            {"template_hash": template.hash, "name": template.name, "kind": template.kind,
             "source": template.source, "suite_hash": suite_hash},
        )  # fmt: skip
        same = {"sha256": upload.sha256, "template_hash": template.hash, "domain_id": domain_id}
        earlier = None if again else row(cursor, _SQL["same_file"], same)
        if earlier:
            raise DuplicateUpload(earlier["seqno"], upload.file_name)
        new = row(
            cursor,
            _SQL["register"],
            same
            | {"seqno": seqno, "parent_seqno": parent_seqno, "kind": template.kind, "file_name": upload.file_name, "file_path": upload.address,
               "file_bytes": upload.bytes, "by": by, "through": through},
        )  # fmt: skip
        assert new
        seqno = int(new["seqno"])
        cursor.execute(_SQL["add_origins"], _asked(domain_id, origins) | {"seqno": seqno})
        cursor.execute(_SQL["add_subscriptions"], _asked(domain_id, subscriptions) | {"seqno": seqno})
        if key:
            cursor.execute(_SQL["remember"], vars(key) | {"seqno": seqno})
        note(cursor, seqno, "uploaded", by, upload.file_name)
        if parent_seqno:
            note(cursor, parent_seqno, event, by, f"as import batch {seqno}, template {template.name}")
        if also:
            also(cursor, seqno)
        return seqno


def uploaded_before(connection: Connection, sha256: str, template: ImportTemplate, domain: str) -> int | None:
    """The seqno of the batch that the same bytes are already, with the same template and domain."""
    with transaction(connection) as cursor:
        domain_id = domains.id_of(cursor, domain)
        same = {"sha256": sha256, "template_hash": template.hash, "domain_id": domain_id}
        found = row(cursor, _SQL["same_file"], same)
        return int(found["seqno"]) if found else None


def check_choices(
    connection: Connection,
    template: ImportTemplate,
    domain: str,
    origins: Collection[str],
    subscriptions: Collection[str],
) -> None:
    """What ``register`` would refuse before it looks at the file. Raises UnknownCode."""
    with transaction(connection) as cursor:
        _chosen(cursor, template, domain, origins, subscriptions)


def _chosen(
    cursor: Cursor,
    template: ImportTemplate,
    domain: str,
    origins: Collection[str],
    subscriptions: Collection[str],
) -> int:
    """The id of the domain, if everything may be chosen with it and the template. Raises UnknownCode."""
    domain_id = domains.id_of(cursor, domain, in_use=True)
    _refuse_other_domains(template, domain)
    _refuse_unchosen(template, "origin", origins, template.origins)
    _refuse_unchosen(template, "subscription list", subscriptions, template.subscriptions)
    _refuse_unusable(cursor, _SQL["unusable_origins"], domain_id, origins, "origin", "is not active")
    _refuse_unusable(
        cursor, _SQL["unusable_subscriptions"], domain_id, subscriptions, "subscription list", "is disabled"
    )
    return domain_id


def _sent_before(cursor: Cursor, key: RequestKey) -> int | None:
    found = row(cursor, _SQL["sent_before"], vars(key))
    if found and found["fingerprint"] != key.fingerprint:
        raise KeyReused(
            f'The Idempotency-Key "{key.key}" belongs to import batch {found["seqno"]}, another upload; '
            "send this one with a key of its own."
        )
    return int(found["seqno"]) if found else None


def reprocess(
    connection: Connection, batch: Batch, template: ImportTemplate, suite_hash: str, *, by: str, through: str
) -> int:
    """Take the file of a batch that has ended once more, as a batch of its own; returns its seqno.

    Raises NotPossible or UnknownCode.
    """
    if not batch.status.terminal:
        raise NotPossible(
            f"Import batch {batch.seqno} is {batch.status.replace('_', ' ')}; only one that has ended can be reprocessed."
        )
    # What an object store has lost is noticed when the file is read.
    lost = not in_a_store(batch.file_path) and not Path(batch.file_path).exists()
    if lost or "file" in removed(connection, batch.seqno):
        raise NotPossible(f"The file of import batch {batch.seqno} is not kept any more; upload it again.")
    upload = Upload(batch.file_name, batch.file_path, batch.file_bytes, batch.file_sha256)
    return register_child(
        connection, upload, template, suite_hash, batch, "reprocessed", by=by, through=through
    )


def register_child(
    connection: Connection,
    upload: Upload,
    template: ImportTemplate,
    suite_hash: str,
    parent: Batch,
    event: str,
    *,
    by: str,
    through: str,
    key: RequestKey | None = None,
    also: Callable[[Cursor, int], None] | None = None,
) -> int:
    """Make a waiting batch of records of another one, with its domain, origins and lists; returns its seqno.

    The other one stays as it ended; both name each other. Raises UnknownCode.
    """
    origins, subscriptions = choices(connection, parent.seqno)
    return register(
        connection, upload, template, suite_hash, parent.domain, origins=origins,
        subscriptions=subscriptions, by=by, through=through, again=True, parent_seqno=parent.seqno, event=event,
        key=key, also=also,
    )  # fmt: skip


def choices(connection: Connection, seqno: int) -> tuple[list[str], list[str]]:
    """The origins and the subscriptions that were chosen for a batch."""
    with transaction(connection) as cursor:
        codes = row(cursor, _SQL["codes"], {"seqno": seqno})
        assert codes
        return codes["origins"], codes["subscriptions"]


def children(connection: Connection, seqno: int) -> list[int]:
    """The batches that took the file of this one once more, or its rejected records."""
    with transaction(connection) as cursor:
        return [r["seqno"] for r in rows(cursor, _SQL["children"], {"seqno": seqno})]


def removed(connection: Connection, seqno: int) -> list[str]:
    """What the batch does not keep any more: its file, the cells of its refused records, its staging, its ledger."""
    with transaction(connection) as cursor:
        return [one["what"] for one in rows(cursor, _SQL["removed"], {"seqno": seqno})]


def refuse_removed_cells(connection: Connection, seqno: int) -> None:
    """Raises NotPossible if the cells of the batch's refused records are not kept any more."""
    refuse_removed_records(connection, seqno)
    if "cells" in removed(connection, seqno):
        raise NotPossible(f"The cells of the rejected records of import batch {seqno} are not kept any more.")


def refuse_removed_records(connection: Connection, seqno: int) -> None:
    """Raises NotPossible if the records of the batch are not kept any more."""
    with transaction(connection) as cursor:
        if gone := records_not_kept(cursor, seqno):
            raise NotPossible(gone)


def records_not_kept(cursor: Cursor, seqno: int) -> str | None:
    """The sentence which says that the ledger does not have the records of the batch any more, if so."""
    for gone in rows(cursor, _SQL["removed"], {"seqno": seqno}):
        if gone["what"] == "ledger":
            return f"The records of import batch {seqno} are not kept any more; its domain keeps them for {gone['days']} days."
    return None


def _refuse_other_domains(template: ImportTemplate, code: str) -> None:
    """A template may say which domains it is for."""
    if template.domains and code not in template.domains:
        raise UnknownCode(
            f'Template "{template.name}" is not for domain {code}; it is for {", ".join(template.domains)}.'
        )


def _refuse_unchosen(
    template: ImportTemplate, name: str, codes: Collection[str], allowed: tuple[str, ...] | None
) -> None:
    """A template may say which origins and subscriptions can be chosen with it."""
    for code in codes if allowed is not None else ():
        if code not in (allowed or ()):
            those = ", ".join(allowed or ()) or "none"
            raise UnknownCode(
                f'The {name} "{code}" cannot be chosen with template "{template.name}"; those that can are: {those}.'
            )


def _refuse_unusable(
    cursor: Cursor, query: str, domain_id: int, codes: Iterable[str], name: str, unusable: str
) -> None:
    for wrong in rows(cursor, query, _asked(domain_id, codes)):
        fault = unusable if wrong["known"] else "does not exist in this domain"
        raise UnknownCode(f'The {name} "{wrong["code"]}" {fault} and cannot be chosen.')


def _asked(domain_id: int, codes: Iterable[str]) -> dict[str, Any]:
    return {"domain_id": domain_id, "codes": sorted(set(codes))}


def get(connection: Connection, seqno: int) -> Batch:
    """The batch of that number. Raises UnknownCode."""
    with transaction(connection) as cursor:
        return read(cursor, seqno)


def read(cursor: Cursor, seqno: int) -> Batch:
    """The batch as this transaction sees it. Raises UnknownCode."""
    return _found(row(cursor, _SQL["batch"], {"seqno": seqno}), seqno)


def listed(
    connection: Connection,
    kind: str | None = None,
    status: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Batch]:
    """Batches, the newest first; ``before`` a seqno goes on with older ones."""
    with transaction(connection) as cursor:
        asked = {"kind": kind, "status": status, "before": before, "limit": limit}
        return [Batch.from_row(r) for r in rows(cursor, _SQL["list"], asked)]


def events(connection: Connection, seqno: int) -> list[dict[str, Any]]:
    """Who did what to the batch and when, the oldest first."""
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["events"], {"seqno": seqno})


def waiting(connection: Connection) -> list[int]:
    """The seqnos of all waiting batches, first come first served."""
    with transaction(connection) as cursor:
        return [r["seqno"] for r in rows(cursor, _SQL["waiting"])]


def template_source(connection: Connection, batch: Batch) -> tuple[str, str]:
    """Name and text of the template version that the batch was uploaded with."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["template_source"], {"template_hash": batch.template_hash})
        assert found  # the foreign key keeps it
        return found["name"], found["source"]


def reserve(connection: Connection, kind: str, run_id: str, limit: int, lease_seconds: int) -> list[int]:
    """Give batches that need work to an Airflow run; two runs never get the same one while its lease lasts.

    Returns all batches of the run. A run that was cleared gets those it is done with once more, in the same places:
    its tasks find the finished ones unchanged and open the failed ones again.
    """
    asked = {"kind": kind, "run_id": run_id, "limit": limit, "lease_seconds": lease_seconds}
    with transaction(connection) as cursor:
        end_silent(cursor, lease_seconds)
        cursor.execute(_SQL["reserve"], asked)
        return [r["seqno"] for r in rows(cursor, _SQL["of_run"], asked)]


def end_silent(cursor: Cursor, lease_seconds: int, seqno: int | None = None) -> None:
    """End the sessions of workers that fell silent inside a transaction, for a whole lease: of a batch, or of any.

    A worker that is at work is never ended, however long its statement takes: whoever wants its batch waits.
    """
    for one in rows(cursor, _SQL["end_silent"], {"seqno": seqno, "lease_seconds": lease_seconds}):
        log.warning(
            "Import batch %s: ended the database session of a worker that had said nothing for %s seconds",
            one["seqno"],
            lease_seconds,
        )


def claim(
    connection: Connection,
    seqno: int,
    by: str,
    lease_seconds: int,
    *,
    run_id: str | None = None,
    step: str = "validate",
) -> Batch:
    """Take a batch on: whoever worked on it before is fenced off. A failed batch is opened again.

    A batch that succeeded is returned as it is. ``step`` is what the worker wants to do; load and close need a
    validated batch. Raises UnknownCode, SetupError or Stopped.
    """
    with transaction(connection) as cursor:
        _take_from_silent(cursor, seqno, lease_seconds)
        batch = _locked(cursor, seqno)
        if batch.succeeded:
            return batch
        if batch.status in (BatchStatus.PAUSED, BatchStatus.CANCELLED):
            raise _stopped(cursor, seqno)
        if step != "validate" and batch.validated_at is None:
            raise SetupError(f"Import batch {seqno} is not validated yet; run its step validate first.")
        if batch.failed:
            if row(cursor, _SQL["roll_back"], {"seqno": seqno}):
                raise NotPossible(
                    f"Import batch {seqno} is rolled back and cannot be opened again; to take its file once more: rowledger reprocess {seqno} --template old"
                )
            if gone := rows(cursor, _SQL["removed"], {"seqno": seqno}):
                what = " and ".join(one["words"] for one in gone)
                raise NotPossible(
                    f"Import batch {seqno} cannot be opened again: {what} not kept any more. Upload its file again."
                )
            _reopen(cursor, batch, by)
        if step == "validate" and batch.validated_at is not None:  # nothing to do: no claim
            return read(cursor, seqno)
        cursor.execute(_SQL["claim"], {"seqno": seqno, "run_id": run_id, "lease_seconds": lease_seconds})
        return read(cursor, seqno)


def _take_from_silent(cursor: Cursor, seqno: int, lease_seconds: int) -> None:
    """The fence. A worker that holds it and has been silent for a lease by now, or will be soon, is ended.

    Raises TryAgain when one that is at work keeps it for too long.
    """
    for attempt in range(1, CLAIM_TRIES + 1):
        end_silent(cursor, lease_seconds, seqno)
        cursor.execute(_SQL["look_again"])
        try:
            with savepoint(cursor):
                cursor.execute(_SQL["impatience"])
                cursor.execute(_SQL["fence"], {"seqno": seqno})
        except TryAgain:
            if attempt == CLAIM_TRIES or cursor.connection.closed:
                raise
        else:
            cursor.execute(_SQL["no_impatience"])
            return


def _reopen(cursor: Cursor, batch: Batch, by: str) -> None:
    """Undo a failure: what was loaded stays loaded; a batch whose validation failed starts from its first record."""
    cursor.execute(_SQL["reopen"], {"seqno": batch.seqno})
    cursor.execute(_SQL["forget_unprocessed"], {"seqno": batch.seqno})
    if batch.validated_at is None:
        cursor.execute(_SQL["forget_records"], {"seqno": batch.seqno})
        cursor.execute(_SQL["start_over"], {"seqno": batch.seqno})
        staging.drop(cursor, batch)
    else:
        cursor.execute(_SQL["finish_validation"], {"seqno": batch.seqno})
    note(cursor, batch.seqno, "reopened", by, batch.error_message)


def take(cursor: Cursor, seqno: int) -> Batch:
    """The batch under its fence, for a request about it: no chunk of it is being written until the transaction ends.

    Waits longer than others do, for as long as a chunk may take. Raises UnknownCode or TryAgain.
    """
    cursor.execute(_SQL["patience"])
    return _locked(cursor, seqno)


def _locked(cursor: Cursor, seqno: int) -> Batch:
    cursor.execute(_SQL["fence"], {"seqno": seqno})
    return _found(row(cursor, _SQL["lock"], {"seqno": seqno}), seqno)


def fence(cursor: Cursor, batch: Batch) -> None:
    """The fence alone, for what is added to a batch that has ended."""
    cursor.execute(_SQL["fence"], {"seqno": batch.seqno})


def hold(cursor: Cursor, batch: Batch, lease_seconds: int) -> None:
    """The fence, and the lease once more. Raises Fenced if another worker has claimed the batch since, or Stopped."""
    fence(cursor, batch)
    asked = {"seqno": batch.seqno, "epoch": batch.epoch, "lease_seconds": lease_seconds}
    _still_ours(cursor, batch, row(cursor, _SQL["hold"], asked))


def hold_shared(cursor: Cursor, batch: Batch) -> None:
    """The fence for one of several lanes, whose mark renews the lease. Raises Fenced or Stopped."""
    cursor.execute(_SQL["fence_shared"], {"seqno": batch.seqno})
    # A statement of its own: it sees what was committed while the one before waited.
    _still_ours(cursor, batch, row(cursor, _SQL["held"], {"seqno": batch.seqno, "epoch": batch.epoch}))


def _still_ours(cursor: Cursor, batch: Batch, found: dict[str, Any] | None) -> None:
    if found is not None:
        return
    now = read(cursor, batch.seqno)
    if now.epoch == batch.epoch and now.status is not BatchStatus.IN_PROGRESS:
        raise _stopped(cursor, batch.seqno)
    raise _taken_over(batch)


def _taken_over(batch: Batch) -> Fenced:
    return Fenced(
        f"Import batch {batch.seqno} was taken over by another worker; this one stops and has written nothing more."
    )


def _stopped(cursor: Cursor, seqno: int) -> Stopped:
    """Who stopped the batch, and where: what the event of the request says."""
    found = row(cursor, _SQL["stop"], {"seqno": seqno})
    if not found:  # it waits again, after trouble that another part of this worker met
        return Stopped(f"Import batch {seqno} is not being worked on any more.")
    place, _, why = (found["detail"] or "").partition(": ")
    because = f": {why}" if why else "."
    return Stopped(f"Import batch {seqno} was {found['event']} {place} by {found['by']}{because}")


def wait(cursor: Cursor, batch: Batch, reason: str) -> None:
    """Nothing is wrong with the batch: it waits until what its worker met has passed. Raises Fenced."""
    fence(cursor, batch)
    if read(cursor, batch.seqno).epoch != batch.epoch:
        raise _taken_over(batch)
    cursor.execute(_SQL["wait"], {"seqno": batch.seqno, "reason": reason})


def ahead(connection: Connection, batch: Batch, lease_seconds: int) -> int | None:
    """The batch of the same kind and domain that was uploaded earlier and is being worked off, if there is one.

    Whoever asks waits for it, and keeps the lease of its own batch meanwhile.
    """
    with transaction(connection) as cursor:
        cursor.execute(
            _SQL["keep"], {"seqno": batch.seqno, "run_id": batch.run_id, "lease_seconds": lease_seconds}
        )
        asked = {"seqno": batch.seqno, "kind": batch.kind, "domain_id": batch.domain_id}
        found = row(cursor, _SQL["ahead"], asked)
        return int(found["seqno"]) if found else None


def lacking_raw(connection: Connection, kind: str) -> list[int]:
    """The batches that ended before their close with refused records whose cells are not in the ledger yet."""
    with transaction(connection) as cursor:
        return [r["seqno"] for r in rows(cursor, _SQL["lacking_raw"], {"kind": kind})]


def unread(connection: Connection, kind: str) -> list[int]:
    """The batches that were cancelled before anybody read them: nobody knows their records yet."""
    with transaction(connection) as cursor:
        return [r["seqno"] for r in rows(cursor, _SQL["unread"], {"kind": kind})]


def count_unread(cursor: Cursor, batch: Batch, records: int) -> None:
    """Note how many records such a batch has; all of them are in the ledger as unprocessed by now."""
    cursor.execute(_SQL["count_unread"], {"seqno": batch.seqno, "records": records})


def set_records(
    cursor: Cursor, batch: Batch, records: int, warnings: Iterable[Reason], columns: dict[str, str]
) -> None:
    """Note what reading the file as a whole has shown."""
    cursor.execute(
        _SQL["set_records"],
        {"seqno": batch.seqno, "records": records, "columns": json.dumps(columns),
         "warnings": json.dumps([warning.as_dict() for warning in warnings])},
    )  # fmt: skip


def mark_validated(cursor: Cursor, batch: Batch, last: int, staged: int, rejected: int) -> None:
    """Move the mark of validation to record ``last``."""
    cursor.execute(
        _SQL["mark_validated"], {"seqno": batch.seqno, "last": last, "staged": staged, "rejected": rejected}
    )


def finish_validation(cursor: Cursor, batch: Batch) -> None:
    """Every record has its verdict: import completed."""
    cursor.execute(_SQL["finish_validation"], {"seqno": batch.seqno})


def count_loaded(cursor: Cursor, batch: Batch, outcomes: Counter[str], lease_seconds: int) -> None:
    """Count what became of some records, and renew the lease.

    The last statement of a lane's chunk: another lane that wants to count waits from here to the commit.
    """
    counts = {str(outcome): outcomes[outcome] for outcome in Outcome}
    asked = {"seqno": batch.seqno, "records": outcomes.total(), "lease_seconds": lease_seconds}
    cursor.execute(_SQL["count_loaded"], asked | counts)


def finish(cursor: Cursor, batch: Batch, by: str) -> None:
    """Close the batch as a success; the database refuses it if the ledger does not balance."""
    cursor.execute(_SQL["finish"], {"seqno": batch.seqno})
    note(cursor, batch.seqno, "executed", by, None)


def fail(cursor: Cursor, batch: Batch, by: str, rule: str, message: str, unprocessed: int) -> None:
    """Close the batch as a failure with its reason; records without an outcome are unprocessed by now."""
    completed = batch.validated_at is not None or rule == "too_many_rejects"
    message = message.replace("\0", "␀")  # of a header that it quotes; text cannot hold it
    cursor.execute(
        _SQL["fail"],
        {"seqno": batch.seqno, "import_completed": completed, "rule": rule, "message": message,
         "unprocessed": unprocessed},
    )  # fmt: skip
    note(cursor, batch.seqno, "failed", by, message)


def note(cursor: Cursor, seqno: int, event: str, by: str, detail: str | None) -> None:
    """Enter an event of a batch: who did what, and why."""
    cursor.execute(_SQL["event"], {"seqno": seqno, "event": event, "by": by, "detail": detail})


def _found(found: dict[str, Any] | None, seqno: int) -> Batch:
    if not found:
        raise UnknownCode(f"There is no import batch {seqno}.")
    return Batch.from_row(found)
