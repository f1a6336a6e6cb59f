"""A dry run: what an import of a file would do today, by the same functions and statements, with nothing kept.

All of it is one transaction that is undone at the end. Each chunk is undone as soon as its outcomes are read, so that
nobody is held up for longer than a chunk takes; its ledger rows are put back for as long as the dry run lasts.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from psycopg2 import sql

from rowledger import batches, db, ledger, loading, pipeline, staging, uploads
from rowledger.db import Connection, Cursor, queries, transaction
from rowledger.errors import FileError
from rowledger.model import Batch
from rowledger.templates import ImportTemplate

_SQL = queries("dry_run")
CHUNK = 20_000  # records; their ledger rows pass through a temporary file
SEQNO = 2**62  # plus the number of the database session: no batch has it, and none is used up


@dataclass(frozen=True)
class Trial:
    """A batch as it would end, and what would become of its records."""

    batch: Batch
    connection: Connection

    def records(
        self, record_no: int | None = None, outcomes: Collection[str] | None = None, limit: int | None = None
    ) -> Generator[dict[str, Any]]:
        """Per record its outcome, reasons and warnings, and the fields that would change, before and after."""
        asked = {"seqno": self.batch.seqno, "record_no": record_no, "limit": limit,
                 "outcomes": list(outcomes) if outcomes else None}  # fmt: skip
        return db.stream(self.connection, _SQL["records"], asked)

    def reasons(self, limit: int) -> list[dict[str, Any]]:
        """The commonest reasons why records would not be loaded."""
        return ledger.common_reasons(self.connection, self.batch.seqno, ledger.NOT_LOADED, limit)


@contextmanager
def dry_run(
    worker: pipeline.Worker,
    path: Path,
    template: ImportTemplate,
    suite_hash: str,
    domain: str,
    *,
    origins: Collection[str] = (),
    subscriptions: Collection[str] = (),
) -> Iterator[Trial]:
    """The batch as it would end, and its ledger, for as long as the context lasts; then nothing of it is left.

    A file that is wrong gives a failed batch. Raises UnknownCode or SetupError.
    """
    scratch, connection = worker.settings.scratch, worker.connection
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="dry-run-") as folder, db.trial(connection):
        upload = uploads.keep_file(path, Path(folder))
        # A version of its own, or whoever uploads with the same template for the first time would wait for this.
        version = template.model_copy(update={"hash": f"dry run {uuid4()}"})
        seqno = batches.register(
            connection, upload, version, suite_hash, domain, origins=origins, subscriptions=subscriptions,
            by=worker.by, through="command line", again=True, seqno=SEQNO + connection.get_backend_pid(),
        )  # fmt: skip
        with transaction(connection) as cursor:
            cursor.execute(_SQL["create_changes"])
        try:
            batch = pipeline.validate(worker, seqno)
            _load(worker, batch, template)
        except FileError:  # the batch says it
            pass
        yield Trial(batches.get(connection, seqno), connection)


def _load(worker: pipeline.Worker, batch: Batch, template: ImportTemplate) -> None:
    """Merge chunk by chunk; of each only what became of its records stays."""
    connection, loader = worker.connection, loading.loader(batch.kind)
    with transaction(connection) as cursor:
        loader.arrange(cursor, batch, template)
        cursor.execute(sql.SQL(_SQL["index_staged"]).format(staging=staging.table(batch)))
    outcomes = Counter[str]()
    key: str | None = None
    while True:
        with tempfile.TemporaryFile() as rows, tempfile.TemporaryFile() as changes:
            with db.undone(connection) as cursor:
                upto = loading.next_key(cursor, batch, key, CHUNK)
                if upto is None:
                    break
                loading.lock(cursor, batch)
                outcomes += loading.merge(cursor, batch, template, key, upto)
                chunk = {"seqno": batch.seqno, "domain_id": batch.domain_id, "after": key, "upto": upto}
                _copy_out(cursor, _SQL["ledger_of_chunk"], batch, chunk, rows)
                _copy_out(cursor, loader.CHANGES, batch, chunk, changes)
            with transaction(connection) as cursor:
                cursor.copy_expert("COPY import_record FROM STDIN", rows)
                cursor.copy_expert("COPY dry_run_change FROM STDIN", changes)
        key = upto
    with transaction(connection) as cursor:
        batches.count_loaded(cursor, batch, outcomes, worker.settings.lease_seconds)
        batches.finish(cursor, batch, worker.by)  # the database refuses a ledger that does not balance


def _copy_out(cursor: Cursor, query: str, batch: Batch, chunk: dict[str, Any], file: Any) -> None:
    statement = sql.SQL(query).format(staging=staging.table(batch)).as_string(cursor)
    cursor.copy_expert(f"COPY ({cursor.mogrify(statement, chunk).decode()}) TO STDOUT", file)
    file.seek(0)
