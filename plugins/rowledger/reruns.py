"""A batch once more, as a batch of its own: its whole file, or only what failed, mended or not.

In: the file; the ledger with the cells of every rejected record; or a file that somebody has mended. Out: a waiting batch;
it and the first one name each other. What was loaded meanwhile does no harm: records that change nothing are unchanged.
A request with a ``key`` that was sent before gives the batch that it made then.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rowledger import batches, ledger, uploads
from rowledger.batches import RequestKey
from rowledger.db import Connection
from rowledger.errors import NotPossible
from rowledger.layouts import header_of
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate
from rowledger.uploads import Upload


def reprocess(
    connection: Connection,
    batch: Batch,
    template: ImportTemplate,
    suite_hash: str,
    *,
    by: str,
    through: str,
    key: RequestKey | None = None,
) -> int:
    """Take the file of a batch that has ended once more, as a batch of its own; returns its seqno.

    Raises NotPossible, UnknownCode or KeyReused.
    """
    if not batch.status.terminal:
        raise NotPossible(
            f"Import batch {batch.seqno} is {batch.status.replace('_', ' ')}; only one that has ended can be reprocessed."
        )
    # What an object store has lost is noticed when the file is read.
    lost = not uploads.in_a_store(batch.file_path) and not Path(batch.file_path).exists()
    if lost or "file" in batches.removed(connection, batch.seqno):
        raise NotPossible(f"The file of import batch {batch.seqno} is not kept any more; upload it again.")
    upload = Upload(batch.file_name, batch.file_path, batch.file_bytes, batch.file_sha256)
    return batches.register_child(
        connection, upload, template, suite_hash, batch, "reprocessed", by=by, through=through, key=key
    )


def rerun(
    connection: Connection,
    settings: Settings,
    batch: Batch,
    template: ImportTemplate,
    suite_hash: str,
    mended: Upload | None = None,
    *,
    by: str,
    through: str,
    key: RequestKey | None = None,
) -> int:
    """Make a batch of the rejected records of one that has ended, or of a mended file that is kept; returns its seqno.

    Raises NotPossible, UnknownCode, SetupError or KeyReused.
    """
    if not batch.status.terminal:
        raise NotPossible(
            f"Import batch {batch.seqno} has not ended yet; its rejected records can be rerun then."
        )
    if mended is None:
        batches.refuse_removed_cells(connection, batch.seqno)
    upload = mended or _rejects(connection, settings, batch, template)
    return batches.register_child(
        connection, upload, template, suite_hash, batch, "rerun", by=by, through=through, key=key
    )


def _rejects(connection: Connection, settings: Settings, batch: Batch, template: ImportTemplate) -> Upload:
    header = list(_header(batch, template, settings)) if template.file.header else []
    name = Path(batch.file_name)
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="rerun-") as folder:
        path = Path(folder) / "rejects.csv"
        encoding = template.file.encoding
        try:
            with path.open("w", encoding=encoding, newline="") as out:
                count = ledger.export_rejects(connection, batch, template, header, out)
        except UnicodeEncodeError as error:  # the template has another encoding since
            raise NotPossible(
                f'The character "{error.object[error.start]}" of a rejected record cannot be written in {encoding}, the '
                "encoding of the template by now. Rerun them with the template of the upload, or mend them."
            ) from None
        if not count:
            raise NotPossible(f"Import batch {batch.seqno} has no rejected records.")
        with path.open("rb") as source:
            return uploads.keep(source, f"{name.stem}_rejects{name.suffix}", settings.uploads)


def _header(batch: Batch, template: ImportTemplate, settings: Settings) -> tuple[str, ...]:
    scratch = settings.scratch
    with uploads.fetched(batch.file_path, batch.file_sha256, settings.uploads, scratch) as path:
        return header_of(path, template, scratch)
