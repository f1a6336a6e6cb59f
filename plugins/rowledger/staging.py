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
from rowledger.templates import ImportTemplate


def table(batch: Batch) -> sql.Identifier:
    """The name of the batch's staging table."""
    return sql.Identifier("rowledger_staging", f"batch_{batch.seqno}")


_ATTRIBUTE_TYPES = {"date": "date", "number": "numeric", "boolean": "boolean", "list": "text[]"}


def create(cursor: Cursor, batch: Batch, kind: Kind, template: ImportTemplate) -> None:
    """Make the table, unless an earlier try has made it.

    It has a column for every field of the kind and for every attribute of the template, and ``cleared``, the names of
    the fields that a record clears, or null.
    """
    declared = [(field.name, field.sql_type) for field in kind.fields]
    attributes = [
        (column.field, _ATTRIBUTE_TYPES.get(column.type, "text"))
        for column in template.columns
        if column.field and column.field not in dict(declared)
    ]
    columns = [
        sql.SQL("record_no integer NOT NULL"),
        sql.SQL('match_key text COLLATE "C" NOT NULL'),
        sql.SQL("warnings jsonb"),
        sql.SQL("cleared text[]"),
        *(
            sql.SQL("{} " + sql_type).format(sql.Identifier(name))
            for name, sql_type in (*declared, *attributes)
        ),
    ]
    cursor.execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(table(batch), sql.SQL(", ").join(columns))
    )


def copy_in(cursor: Cursor, batch: Batch, accepted: Any) -> int:
    """COPY an Arrow table of accepted records in; returns their number."""
    import pyarrow as pa
    import pyarrow.csv

    for place, column in enumerate(accepted.columns):
        if pa.types.is_list(column.type):
            accepted = accepted.set_column(place, accepted.column_names[place], _array_literals(column))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(accepted, buffer, pyarrow.csv.WriteOptions(include_header=False))
    buffer.seek(0)
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in accepted.column_names)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table(batch), columns)
    cursor.copy_expert(statement, buffer)
    return int(accepted.num_rows)


def _array_literals(lists: Any) -> Any:
    """Lists of text as PostgreSQL writes arrays: ["a", 'say "b"'] -> {"a","say \\"b\\""}."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = lists.combine_chunks()
    escaped = pc.replace_substring_regex(lists.flatten(), r'(["\\])', r"\\\1")
    quoted = pc.binary_join_element_wise('"', escaped, '"', "")
    offsets = pa.array(
        [0, *pc.cumulative_sum(pc.fill_null(pc.list_value_length(lists), 0)).to_pylist()], pa.int32()
    )
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, quoted), ",")
    return pc.if_else(pc.is_null(lists), None, pc.binary_join_element_wise("{", joined, "}", ""))


def finish(cursor: Cursor, batch: Batch) -> None:
    """Index the table for reading in key order, once it is filled."""
    cursor.execute(sql.SQL("CREATE INDEX ON {} (match_key, record_no)").format(table(batch)))
    cursor.execute(sql.SQL("ANALYZE {}").format(table(batch)))


def drop(cursor: Cursor, batch: Batch) -> None:
    """Remove the table."""
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table(batch)))
