"""Accepted records -> the batch's staging table.

One table per batch, ``rowledger_staging.batch_<seqno>``, filled in the order of the file and read in the order of
the match key. It lives from the first accepted chunk to the close of the batch.
"""

from __future__ import annotations

import io
from typing import Any

from psycopg2 import sql

from rowledger.db import Cursor
from rowledger.model import Batch, Kind


def table(batch: Batch) -> sql.Identifier:
    """The name of the batch's staging table."""
    return sql.Identifier("rowledger_staging", f"batch_{batch.seqno}")


def create(cursor: Cursor, batch: Batch, kind: Kind) -> None:
    """Make the table, unless an earlier try has made it."""
    columns = [
        sql.SQL("record_no integer NOT NULL"),
        sql.SQL('match_key text COLLATE "C" NOT NULL'),
        sql.SQL("warnings jsonb"),
        *(sql.SQL("{} " + field.sql_type).format(sql.Identifier(field.name)) for field in kind.fields),
    ]
    cursor.execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(table(batch), sql.SQL(", ").join(columns))
    )


def copy_in(cursor: Cursor, batch: Batch, accepted: Any) -> int:
    """COPY an Arrow table of accepted records in; returns their number."""
    import pyarrow.csv

    buffer = io.BytesIO()
    pyarrow.csv.write_csv(accepted, buffer, pyarrow.csv.WriteOptions(include_header=False))
    buffer.seek(0)
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in accepted.column_names)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table(batch), columns)
    cursor.copy_expert(statement, buffer)
    return int(accepted.num_rows)


def finish(cursor: Cursor, batch: Batch) -> None:
    """Index the table for reading in key order, once it is filled."""
    cursor.execute(sql.SQL("CREATE INDEX ON {} (match_key, record_no)").format(table(batch)))
    cursor.execute(sql.SQL("ANALYZE {}").format(table(batch)))


def drop(cursor: Cursor, batch: Batch) -> None:
    """Remove the table."""
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table(batch)))
