"""A domain of a test's own, and what two databases are compared by."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rowledger import db, reference
from rowledger.db import Connection
from rowledger.reference import Reference

DATA = Path(__file__).parent.parent / "data"
_numbers = itertools.count(1)

TABLES = {
    "contacts": """
        SELECT external_id, email, to_jsonb(c) - '{contact_id,domain_id,created_at,updated_at}'::text[] AS fields,
               ARRAY(SELECT (code, seqno, record_no)::text FROM contact_origin JOIN origin USING (origin_id)
                     WHERE contact_id = c.contact_id ORDER BY entry_id) AS origins,
               ARRAY(SELECT (list_id, opted_in)::text FROM contact_subscription JOIN subscription USING (subscription_id)
                     WHERE contact_id = c.contact_id ORDER BY list_id) AS subscriptions,
               ARRAY(SELECT (list_id, opted_in, seqno, record_no)::text
                     FROM subscription_history JOIN subscription USING (subscription_id)
                     WHERE contact_id = c.contact_id ORDER BY seqno, record_no, list_id) AS history,
               ARRAY(SELECT (seqno, record_no, outcome, before)::text FROM import_record JOIN import_batch USING (seqno)
                     WHERE kind = 'contact' AND target_id = contact_id ORDER BY seqno, record_no) AS records
        FROM contact AS c ORDER BY external_id, email, last_name""",
    "contracts": """
        SELECT form_id, code, date_result::text, seqno, record_no,
               ARRAY(SELECT (code, date_result, cause, seqno, record_no)::text
                     FROM status_history JOIN contract_status USING (status_id)
                     WHERE contract_id = contract.contract_id
                     ORDER BY date_result, seqno NULLS FIRST, record_no) AS history,
               ARRAY(SELECT (seqno, record_no, outcome)::text FROM import_record JOIN import_batch USING (seqno)
                     WHERE kind = 'contract_status' AND target_id = contract_id ORDER BY seqno, record_no) AS records
        FROM contract LEFT JOIN contract_status USING (status_id) ORDER BY form_id""",
    "register": """
        SELECT form_id, sign_up_date::text, contact.external_id,
               ARRAY(SELECT (seqno, record_no, outcome, before)::text FROM import_record JOIN import_batch USING (seqno)
                     WHERE kind = 'contract' AND target_id = contract_id ORDER BY seqno, record_no) AS records
        FROM contract LEFT JOIN contact USING (contact_id) ORDER BY form_id""",
    "parked": """
        SELECT seqno, record_no, waits_for, key, outcome, reasons, warnings, target_id IS NULL AS nowhere
        FROM parked_record ORDER BY seqno, record_no""",
    "staging": "SELECT count(*) FROM pg_tables WHERE schemaname = 'rowledger_staging'",
}  # fmt: skip


@pytest.fixture
def domain(connection: Connection) -> str:
    """A domain like DEMO, with its contracts F1 to F3, for tests that share a database."""
    (demo, _) = reference.read(DATA / "reference.yml").domains
    code = f"DEMO-{next(_numbers)}"
    reference.load(connection, Reference(domains=(demo.model_copy(update={"code": code}),)))
    return code


@pytest.fixture
def contents() -> Callable[[Connection], dict[str, list[Any]]]:
    """Everything in a database that files change, without ids and times."""

    def contents(connection: Connection) -> dict[str, list[Any]]:
        with db.transaction(connection) as cursor:
            return {
                name: [list(row.values()) for row in db.rows(cursor, query)] for name, query in TABLES.items()
            }

    return contents


@pytest.fixture
def everything(connection: Connection) -> Callable[[], str]:
    """All that the tables of Rowledger say, as one text: what a value is looked for in."""

    def everything() -> str:
        with db.transaction(connection) as cursor:
            query = "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname ^@ 'rowledger'"
            tables = [one["name"] for one in db.rows(cursor, query)]
            texts = [
                db.row(cursor, f"SELECT string_agg(t::text, E'\n') AS said FROM {name} AS t")
                for name in tables
            ]
        return "\n".join(f"{name}: {text['said']}" for name, text in zip(tables, texts, strict=True) if text)

    return everything


@pytest.fixture
def database_before(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], contextlib.AbstractContextManager[Connection]]:
    """Makes a database as it was before a migration."""

    @contextlib.contextmanager
    def database_before(migration: str) -> Iterator[Connection]:
        name = f"before_{migration}"
        with contextlib.closing(db.connect(server.get_uri("postgres"))) as administrator:
            administrator.autocommit = True
            administrator.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
            try:
                with contextlib.closing(db.connect(server.get_uri(name))) as connection:
                    with monkeypatch.context() as patch:
                        earlier = [one for one in db._migrations() if one[0] < migration]
                        patch.setattr(db, "_migrations", lambda: earlier)
                        db.migrate(connection)
                    yield connection
            finally:
                administrator.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")

    return database_before
