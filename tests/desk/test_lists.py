"""What lists filter by and add up is kept beside the batches: it says the same as they do, whatever becomes of them."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rowledger import batches, control, db, ledger, loading, pipeline, reruns, roll_back, templates, uploads
from rowledger.db import Connection, rows, transaction
from rowledger.desk import batch_list, batch_view
from rowledger.desk.batch_list import Filter, Listing
from rowledger.errors import Fenced, FileError, NotPossible, RecordRefused, Stopped, TryAgain
from rowledger.settings import Settings
from rowledger.suites import suite_hash

KINDS = ["contact", "contract", "contract_status"]
Submit = Callable[..., int]

# The same question, asked of the batches themselves.
BY = {
    None: "NULL::text",
    "status": "CASE WHEN status <> 'executed' THEN status WHEN processed THEN 'succeeded' ELSE 'failed' END",
    "kind": "import_batch.kind",
    "domain": "domain.code",
    "template": "template_version.name",
    "origin": "origin.code",
    "uploader": "uploaded_by",
    "day": "to_char(uploaded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
PLAIN = """
    SELECT {by} AS "group", count(DISTINCT seqno) AS batches,
           count(*) FILTER (WHERE status = 'executed' AND NOT processed) AS failed,
           count(*) FILTER (WHERE status NOT IN ('executed', 'cancelled')) AS unfinished,
           coalesce(sum(records_in_file), 0) AS records,
           sum(created) AS created, sum(updated) AS updated, sum(unchanged) AS unchanged, sum(historic) AS historic,
           sum(ignored) AS ignored, sum(parked) AS parked, sum(rejected) AS rejected, sum(unprocessed) AS unprocessed
    FROM import_batch
    JOIN domain USING (domain_id)
    JOIN template_version USING (template_hash)
    {origins}
    WHERE {where}
    GROUP BY 1 ORDER BY 1"""
ORIGINS = "LEFT JOIN import_batch_origin USING (seqno) LEFT JOIN origin USING (origin_id)"
# Filters, and what they mean.
WHERE = {
    Filter(): "true",
    Filter(kind="contact"): "import_batch.kind = 'contact'",
    Filter(domain="OTHER"): "domain.code = 'OTHER'",
    Filter(template="contracts"): "template_version.name = 'contracts'",
    Filter(status="failed"): "status = 'executed' AND NOT processed",
    Filter(status="executed"): "status = 'executed'",
    Filter(status="paused"): "status = 'paused'",
    Filter(origin="WEB"): "EXISTS (SELECT FROM import_batch_origin AS o JOIN origin AS w USING (origin_id)"
    " WHERE o.seqno = import_batch.seqno AND w.code = 'WEB')",
    Filter(uploader="Zoé"): "uploaded_by = 'Zoé'",
    Filter(q="ZOÉ"): "uploaded_by = 'Zoé' OR file_name LIKE '%zoé%'",
    Filter(q="_1"): "file_name LIKE '%\\_1%'",
}


def differences(connection: Connection) -> list[Any]:
    """The filters and groups for which the lists and the batches say different things."""
    different = []
    for asked, where in WHERE.items():
        for group, by in BY.items():
            query = PLAIN.format(by=by, where=where, origins=ORIGINS if group == "origin" else "")
            with transaction(connection) as cursor:
                plain = [dict(one) for one in rows(cursor, query)]
                total = rows(cursor, PLAIN.format(by="NULL", where=where, origins=""))
            if group == "day":
                plain.reverse()
            told = batch_list.totals(connection, asked, KINDS, group)  # type: ignore[arg-type]
            if (told.groups, told.total) != (plain, dict(total[0]) if total else None):
                different.append((asked.given(), group, plain, told))
    return different


class Walk:
    """A way through the lives of batches that is drawn from a seed."""

    def __init__(self, seed: int, connection: Connection, settings: Settings) -> None:
        self._draw, self._connection, self._settings = random.Random(seed), connection, settings
        self._worker = pipeline.Worker(connection, settings, "tester")
        self.steps: list[str] = []

    def step(self) -> None:
        seqnos = [batch.seqno for batch in batches.listed(self._connection, limit=100)]
        names = ["upload"] * 2 + (
            ["work"] * 3 + ["pause", "resume", "cancel", "undo", "again", "half"]
        ) * bool(seqnos)
        name = self._draw.choice(names)
        self.steps.append(name)
        with contextlib.suppress(NotPossible, Stopped, Fenced, FileError, TryAgain):
            getattr(self, f"_{name}")(self._draw.choice(seqnos) if seqnos else 0)

    def _upload(self, _: int) -> None:
        n, draw = self._draw.randrange(10**6), self._draw
        template, content = draw.choice([
            ("contacts", f"Customer number,Last name,Country\nK{n},A,DE\nL{n},,DE\nK{n % 7},B,DE\n"),
            ("contacts", f"Kind,Nothing\n{n},that fits\n"),
            ("contracts", f"Form ID;Sign-up date;Customer number\nC{n};02-03-2026;\nF1;2026;\n"),
            ("result_codes", f"F1;02-02-2026;{draw.choice([20, 30])};;\nF{n};02-02-2026;20;;\nF2;02-02-2026;99;;\n"),
        ])  # fmt: skip
        origins = draw.choice([(), ("WEB",), ("WEB", "FAIR")]) if template == "contacts" else ()
        domain = "DEMO" if origins else draw.choice(["DEMO", "OTHER"])
        chosen = templates.find_template(self._settings.templates, template, loading.kinds())
        upload = uploads.keep(io.BytesIO(content.encode()), f"file_{n % 30}.csv", self._settings.uploads)
        batches.register(
            self._connection, upload, chosen, suite_hash(chosen), domain, origins=origins,
            by=draw.choice(["ann", "Zoé"]), through="api", again=True,
        )  # fmt: skip

    def _work(self, seqno: int) -> None:
        pipeline.work(self._worker, seqno)

    def _half(self, seqno: int) -> None:
        pipeline.validate(self._worker, seqno)

    def _pause(self, seqno: int) -> None:
        control.pause(self._connection, seqno, by="ann")

    def _resume(self, seqno: int) -> None:
        control.resume(self._connection, seqno, by="ann")

    def _cancel(self, seqno: int) -> None:
        control.cancel(self._connection, seqno, by="ann")

    def _undo(self, seqno: int) -> None:
        roll_back.ask(self._connection, seqno, by="ann", why="the wrong file")
        roll_back.work(self._worker, seqno)

    def _again(self, seqno: int) -> None:
        batch = batches.get(self._connection, seqno)
        template = pipeline.template_of(self._connection, batch)
        reruns.reprocess(
            self._connection, batch, template, suite_hash(template), by="ann", through="command line"
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_totals_are_those_of_the_batches_whatever_becomes_of_them(
    seed: int, connection: Connection, settings: Settings
) -> None:
    walk = Walk(seed, connection, settings)
    assert differences(connection) == []
    for _ in range(6):
        for _ in range(5):
            walk.step()
        assert differences(connection) == [], walk.steps
    assert [c["check"] for c in ledger.check(connection) if c["violations"]] == []
    assert {"work", "cancel", "undo", "again"} <= set(walk.steps)


def test_totals_are_those_of_the_batches_when_all_is_done_at_once(
    connection: Connection, database_url: str, settings: Settings
) -> None:
    def walk(seed: int) -> None:
        with contextlib.closing(db.connect(database_url)) as mine:
            steps = Walk(seed, mine, settings)
            for _ in range(15):
                steps.step()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(walk, range(4)))
    assert differences(connection) == []
    assert [c["check"] for c in ledger.check(connection) if c["violations"]] == []


def test_what_is_undone_leaves_no_trace_in_the_totals(connection: Connection, submit: Submit) -> None:
    submit("Customer number,Last name\nK1,A\n")
    before = batch_list.totals(connection, Filter(), KINDS, "status")
    with pytest.raises(RecordRefused), transaction(connection) as cursor:
        cursor.execute("UPDATE import_batch SET status = 'paused', file_name = 'other.csv'; SELECT 1 / 0")
    assert batch_list.totals(connection, Filter(), KINDS, "status") == before
    assert batch_list.page(connection, Listing(q="other"), KINDS).batches == []


# Records by their reasons -----------------------------------------------------------------------------------------

SOME = "Customer number,Email,Last name,Country\n" + "".join(
    f"K{n},{'nobody' if n % 3 == 1 else f'k{n}@example.org'},{'' if n % 5 == 1 else 'A'},{'XX' if n % 11 == 1 else 'DE'}\n"
    for n in range(60)
)
ASKED = [
    {"outcome": outcome, "rule": rule, "column": column, "after": after}
    for outcome in (None, "rejected", "created")
    for rule in (None, "format", "required", "not_in_set", "nothing")
    for column in (None, "Email", "Last name", "Country", "Nothing")
    for after in (0, 31)
]


@pytest.mark.parametrize("kept", ["record_nos", "record_nos[1:2]", "record_nos[1:7]", "NULL"])
def test_records_of_a_reason_are_those_that_have_it_however_many_numbers_were_kept(
    kept: str, connection: Connection, submit: Submit, work: Callable[[int], Any]
) -> None:
    batch = work(submit(SOME))
    at_work = batches.get(connection, submit(SOME, again=True))
    with transaction(connection) as cursor:
        cursor.execute(f"UPDATE import_batch_reason SET record_nos = {kept}")
        cursor.execute(
            "INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, reasons, raw)"
            " SELECT %s, record_no, domain_id, outcome, target_id, reasons, raw FROM import_record WHERE seqno = %s AND record_no < 50",
            (at_work.seqno, batch.seqno),
        )
    assert batch.counts["rejected"] > 20
    for one in (batch, at_work):
        everything = list(ledger.records(connection, one.seqno))
        for asked in ASKED:
            meant = [record["record_no"] for record in everything if _is_meant(record, **asked)]
            for limit in (2, 50):
                told = batch_view.records(connection, one, **asked, limit=limit)  # type: ignore[arg-type]
                assert [record["record_no"] for record in told] == meant[: limit + 1], (asked, limit)


def test_records_of_an_outcome_that_is_rare_in_a_large_batch_are_found_by_their_numbers(
    connection: Connection, submit: Submit
) -> None:
    seqno = submit(SOME)
    rare = [3, 4000, 10_001]
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO import_record (seqno, domain_id, record_no, outcome)"
            " SELECT seqno, domain_id, n, CASE WHEN n = ANY(%s) THEN 'updated' ELSE 'unchanged' END"
            " FROM import_batch, generate_series(1, 10002) AS n WHERE seqno = %s",
            (rare, seqno),
        )
        cursor.execute("UPDATE import_batch SET records_in_file = 10002, updated = 3, unchanged = 9999")

    def found(outcome: str, after: int, limit: int) -> list[int]:
        told = batch_view.records(
            connection, batches.get(connection, seqno), outcome=outcome, after=after, limit=limit
        )
        return [record["record_no"] for record in told]

    def all_found() -> list[list[int]]:
        return [found(outcome, after, limit) for outcome in ("updated", "unchanged", "created")
                for after in (0, 3, 5000, 10_001) for limit in (1, 50)]  # fmt: skip

    by_looking = all_found()
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET status = 'executed', import_completed = true, processed = true, processed_at = now()"
        )
        kept = rows(cursor, "SELECT outcome, record_nos FROM import_batch_rare_outcome ORDER BY 1")
    assert [one["outcome"] for one in kept] == ["unchanged", "updated"]
    assert kept[1]["record_nos"] == rare
    assert all_found() == by_looking
    assert by_looking[:8] == [[3, 4000], rare, [4000, 10_001], [4000, 10_001], [10_001], [10_001], [], []]


def _is_meant(
    record: dict[str, Any], outcome: str | None, rule: str | None, column: str | None, after: int
) -> bool:
    reasons = record["reasons"] or []
    return (
        record["record_no"] > after
        and outcome in (None, record["outcome"])
        and (rule is None or any(reason["rule"] == rule for reason in reasons))
        and (column is None or any(reason["column"] == column for reason in reasons))
    )
