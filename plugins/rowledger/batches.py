"""The life of a batch: register, reserve, claim (the fence), reopen, wait, finish, fail.

A claim raises the batch's epoch. Every later transaction of the worker begins with ``hold`` or ``hold_shared``, which
checks that the epoch is still the worker's; the loser of a take-over gets ``Fenced`` and has written nothing.

The fence is an advisory lock of the transaction. Whatever changes a batch takes it alone and first of all; those who
write a chunk share it, so that they do not wait for each other, and nobody changes the batch while one of them writes.

A huge file is worked in parts, each claimed by a task of its own: a claim of a part raises the epoch of that part, and
the batch's only if nobody is at work. Who claims the batch without a part takes it in one piece, whoever is at its parts.

Whoever wants a batch waits for the chunk that is being written, but not for a worker that is stopped in the middle of
one: its session is ended once it has said nothing for a lease.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rowledger import domains, staging, uploads
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
from rowledger.model import Batch, BatchStatus, Outcome, Part, Reason
from rowledger.stores import Store
from rowledger.templates import ImportTemplate
from rowledger.uploads import Upload

_SQL = queries("batches")
log = logging.getLogger("rowledger")
CLAIM_TRIES = 10  # of three seconds each
Share = list[int]  # a seqno, and the number of a part of the batch, or 0 for the whole


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
    """Make a waiting batch of an upload; returns its seqno.

    Raises UnknownCode, DuplicateUpload or KeyReused; TryAgain if somebody has let its file go since it was kept.

    ``parent_seqno`` is the batch whose records are taken once more, which is an ``event`` of that batch. A ``seqno`` is
    chosen by dry runs only. An upload with a ``key`` that was sent before is the batch that it became then. ``also``
    belongs to the same transaction.
    """
    with transaction(connection) as cursor:
        sent = key and _sent_before(cursor, key)
        if sent:
            return sent
        domain_id = _chosen(cursor, template, domain, origins, subscriptions)
        if not connection.trial:
            # Two uploads of one file at once must not both believe to be the first, nor is it let go meanwhile.
            cursor.execute(_SQL["alone_with_file"], {"sha256": upload.sha256})
        cursor.execute(
            _SQL["keep_template"],
            {"template_hash": template.hash, "name": template.name, "kind": template.kind,
             "source": template.source, "suite_hash": suite_hash},
        )  # fmt: skip
        same = {"sha256": upload.sha256, "template_hash": template.hash, "domain_id": domain_id}
        earlier = None if again else row(cursor, _SQL["same_file"], same)
        if earlier:
            raise DuplicateUpload(earlier["seqno"], upload.file_name)
        if not upload.is_there:
            raise TryAgain(f'The file "{upload.file_name}" was let go at this moment; upload it again.')
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


def let_file_go(
    connection: Connection, place: Path | Store, sha256: str, kept_before: float | None = None
) -> bool:
    """Remove a kept file unless a batch needs it, or it was kept since a moment that is given; whether it was removed.

    Who has kept it and is about to make a batch of it is told by ``register``. Raises as ``uploads.remove`` does.
    """
    with transaction(connection) as cursor:
        cursor.execute(_SQL["alone_with_file"], {"sha256": sha256})
        # A statement of its own: it sees what was committed while the one before waited.
        found = row(cursor, _SQL["needed"], {"sha256": sha256})
        assert found
        if found["needed"]:
            return False
        if kept_before is not None and (uploads.kept_at(place, sha256) or 0) >= kept_before:
            return False
        return uploads.remove(place, sha256)


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


def shared_out(
    connection: Connection, seqnos: list[int], part_bytes: int, max_parts: int, most: int, lease_seconds: int
) -> list[Share]:
    """What the tasks of a run are given, ``most`` at most: a batch each, or a part of one whose file is huge.

    A batch that somebody has begun in one piece stays in one piece.
    """
    with transaction(connection) as cursor:
        found = rows(cursor, _SQL["begun"], {"seqnos": seqnos})
    shares, room = list[Share](), most - len(found)
    for one in found:
        parts = one["parts"]
        if parts == 1 and not one["begun"]:
            parts = min(max_parts, -(-one["file_bytes"] // part_bytes))
        parts = 1 if parts - 1 > room else parts
        if parts > 1:
            parts = _cut(connection, one["seqno"], parts, lease_seconds)
        room -= parts - 1
        shares += [[one["seqno"], part] for part in (range(1, parts + 1) if parts > 1 else (0,))]
    return shares


def _cut(connection: Connection, seqno: int, parts: int, lease_seconds: int) -> int:
    """Let a batch that nobody has begun be worked in parts; returns in how many it is."""
    with transaction(connection) as cursor:
        _take_from_silent(cursor, seqno, lease_seconds)
        batch = _locked(cursor, seqno)
        begun = batch.validated_at is not None or batch.validated_records > 0
        if batch.parts > 1 or begun or batch.status.terminal:
            return batch.parts
        cursor.execute(_SQL["cut"], {"seqno": seqno, "parts": parts})
        return parts


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
    part: int | None = None,
    retried: bool = False,
) -> Batch:
    """Take a batch on: whoever worked on it before is fenced off. A failed batch is opened again.

    With ``part`` the same of that part alone, unless the batch is not worked in parts any more: then the whole of it, by
    a task that is tried again or was cleared (``retried``), but not by one that comes late to what another has ended.

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
        part = _part_to_claim(batch, part, step, retried)
        if step != "validate" and batch.validated_at is None:
            raise SetupError(f"Import batch {seqno} is not validated yet; run its step validate first.")
        if batch.failed:
            _reopen(cursor, batch, by)
        if step == "validate" and batch.validated_at is not None:  # nothing to do: no claim
            return read(cursor, seqno)
        if part is not None:
            return _join(cursor, seqno, part, run_id, lease_seconds)
        if batch.parts > 1:
            in_one_piece(cursor, batch)
            if batch.validated_at is None:
                _start_over(cursor, batch)
        cursor.execute(_SQL["claim"], {"seqno": seqno, "run_id": run_id, "lease_seconds": lease_seconds})
        return read(cursor, seqno)


def _part_to_claim(batch: Batch, part: int | None, step: str, retried: bool) -> int | None:
    if part is None or batch.parts > 1:
        return part
    if not retried and (step == "validate" or batch.validated_at is None or batch.failed):
        raise Stopped(
            f"Import batch {batch.seqno} is not worked in parts any more; there is nothing to do for this one."
        )
    return None


def _join(cursor: Cursor, seqno: int, part: int, run_id: str | None, lease_seconds: int) -> Batch:
    """Claim one part of a batch; who is at another part is not disturbed."""
    cursor.execute(_SQL["join"], {"seqno": seqno, "run_id": run_id, "lease_seconds": lease_seconds})
    batch = read(cursor, seqno)
    found = row(cursor, _SQL["claim_part"], {"seqno": seqno, "part": part})
    if not found:
        raise Stopped(f"Import batch {seqno} has no part {part}.")
    return replace(batch, part=Part(part, batch.parts, **found), attempts=found["attempts"])


def in_one_piece(cursor: Cursor, batch: Batch) -> None:
    """Forget the parts of a batch, and with them which records of it have a verdict."""
    cursor.execute(_SQL["in_one_piece"], {"seqno": batch.seqno})


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
    """Undo a failure: what was loaded stays loaded; a batch whose validation failed starts from its first record.

    Raises NotPossible.
    """
    if row(cursor, _SQL["roll_back"], {"seqno": batch.seqno}):
        raise NotPossible(
            f"Import batch {batch.seqno} is rolled back and cannot be opened again; to take its file once more: rowledger reprocess {batch.seqno} --template old"
        )
    if gone := rows(cursor, _SQL["removed"], {"seqno": batch.seqno}):
        what = " and ".join(one["words"] for one in gone)
        raise NotPossible(
            f"Import batch {batch.seqno} cannot be opened again: {what} not kept any more. Upload its file again."
        )
    cursor.execute(_SQL["reopen"], {"seqno": batch.seqno})
    cursor.execute(_SQL["forget_unprocessed"], {"seqno": batch.seqno})
    if batch.validated_at is None:
        _start_over(cursor, batch)
    else:
        cursor.execute(_SQL["finish_validation"], {"seqno": batch.seqno})
    note(cursor, batch.seqno, "reopened", by, batch.error_message)


def _start_over(cursor: Cursor, batch: Batch) -> None:
    cursor.execute(_SQL["forget_records"], {"seqno": batch.seqno})
    cursor.execute(_SQL["start_over"], {"seqno": batch.seqno})
    staging.drop(cursor, batch)


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
    _still_ours(cursor, batch, row(cursor, _SQL["hold"], _epochs(batch) | {"lease_seconds": lease_seconds}))


def hold_shared(cursor: Cursor, batch: Batch) -> None:
    """The fence for one of several that write chunks, whose mark renews the lease. Raises Fenced or Stopped."""
    cursor.execute(_SQL["fence_shared"], {"seqno": batch.seqno})
    # A statement of its own: it sees what was committed while the one before waited.
    _still_ours(cursor, batch, row(cursor, _SQL["held"], _epochs(batch)))


def _epochs(batch: Batch) -> dict[str, Any]:
    part, part_epoch = (batch.part.number, batch.part.epoch) if batch.part else (None, None)
    return {"seqno": batch.seqno, "epoch": batch.epoch, "part": part, "part_epoch": part_epoch}


def _still_ours(cursor: Cursor, batch: Batch, found: dict[str, Any] | None) -> None:
    if found is not None:
        return
    now = read(cursor, batch.seqno)
    if now.epoch != batch.epoch or row(cursor, _SQL["part_taken"], _epochs(batch)):
        raise taken_over(batch)
    if now.status is BatchStatus.EXECUTED:
        raise Stopped(f"Import batch {batch.seqno} was brought to its end by the worker of another part.")
    if now.status is not BatchStatus.IN_PROGRESS:
        raise _stopped(cursor, batch.seqno)
    raise taken_over(batch)


def taken_over(batch: Batch) -> Fenced:
    """What a worker is told that is not the batch's any more."""
    return Fenced(
        f"Import batch {batch.seqno} was taken over by another worker; this one stops and has written nothing more."
    )


def _stopped(cursor: Cursor, seqno: int) -> Stopped:
    """Who stopped the batch, and where: what the event of the request says."""
    found = row(cursor, _SQL["stop"], {"seqno": seqno})
    if not found:  # it has ended, or waits again after trouble that another lane met
        return Stopped(f"Import batch {seqno} is not being worked on any more.")
    place, _, why = (found["detail"] or "").partition(": ")
    because = f": {why}" if why else "."
    return Stopped(f"Import batch {seqno} was {found['event']} {place} by {found['by']}{because}")


def wait(cursor: Cursor, batch: Batch, reason: str) -> None:
    """Nothing is wrong with the batch: it waits until what its worker met has passed. Raises Fenced.

    While one part waits the others go on: the batch stays in progress.
    """
    fence(cursor, batch)
    if read(cursor, batch.seqno).epoch != batch.epoch:
        raise taken_over(batch)
    cursor.execute(
        _SQL["wait"], {"seqno": batch.seqno, "reason": reason, "in_progress": batch.part is not None}
    )


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


def mark_validated(
    cursor: Cursor, batch: Batch, last: int, records: int, staged: int, rejected: int, lease_seconds: int
) -> None:
    """Move the mark of validation by so many records, to record ``last``, and renew the lease.

    The last statements of a chunk: who is at another part and wants to count waits from here to the commit.
    """
    mark_part(cursor, batch, last)
    asked = {"records": records, "staged": staged, "rejected": rejected, "lease_seconds": lease_seconds}
    cursor.execute(_SQL["mark_validated"], {"seqno": batch.seqno} | asked)


def mark_part(cursor: Cursor, batch: Batch, last: int | None = None) -> None:
    """A part got further, if it is one that is worked at: with its validation, up to record ``last``."""
    if batch.part:
        cursor.execute(_SQL["mark_part"], {"seqno": batch.seqno, "part": batch.part.number, "last": last})


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
