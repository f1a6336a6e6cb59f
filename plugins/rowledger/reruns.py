"""Only what failed once more: the rejected records of a batch, mended or not, as a batch of their own.

In: the ledger with the cells of every rejected record, or a file that somebody has mended. Out: a waiting batch; it and
the first one name each other. What was loaded meanwhile does no harm: records that change nothing are unchanged.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rowledger import batches, ledger, uploads
from rowledger.db import Connection
from rowledger.errors import NotPossible
from rowledger.layouts import header_of
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate
from rowledger.uploads import Upload


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
) -> int:
    """Make a batch of the rejected records of one that has ended, or of a mended file that is kept; returns its seqno.

    Raises NotPossible, UnknownCode or SetupError.
    """
    if not batch.status.terminal:
        raise NotPossible(
            f"Import batch {batch.seqno} has not ended yet; its rejected records can be rerun then."
        )
    if mended is None:
        batches.refuse_removed_cells(connection, batch.seqno)
    upload = mended or _rejects(connection, settings, batch, template)
    return batches.register_child(
        connection, upload, template, suite_hash, batch, "rerun", by=by, through=through
    )


def _rejects(connection: Connection, settings: Settings, batch: Batch, template: ImportTemplate) -> Upload:
    header = list(_header(batch, template, settings)) if template.file.header else []
    name = Path(batch.file_name)
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="rerun-") as folder:
        path = Path(folder) / "rejects.csv"
        encoding = template.file.encoding
        with path.open("w", encoding=encoding, errors="xmlcharrefreplace", newline="") as out:
            count = ledger.export_rejects(connection, batch, template, header, out)
        if not count:
            raise NotPossible(f"Import batch {batch.seqno} has no rejected records.")
        with path.open("rb") as source:
            return uploads.keep(source, f"{name.stem}_rejects{name.suffix}", settings.uploads)


def _header(batch: Batch, template: ImportTemplate, settings: Settings) -> tuple[str, ...]:
    scratch = settings.scratch
    with uploads.fetched(batch.file_path, batch.file_sha256, settings.uploads, scratch) as path:
        return header_of(path, template, scratch)
