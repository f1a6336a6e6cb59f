"""The ledger: it balances or the batch stays open, what is closed stays closed, and ``check`` finds what was broken."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rowledger import db, ledger, loading, pipeline, roll_back
from rowledger.db import Connection, queries, rows, transaction
from rowledger.errors import RecordRefused
from rowledger.model import Batch
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
Became = Callable[[int], list[tuple[Any, ...]]]
Fresh = Callable[..., AbstractContextManager[str]]

CONTACTS = """Customer number,Email,Last name
K1,ada@example.com,Ångström
K2,nobody,Brontë
K3,eva@example.com,Čapek
"""
STATUSES = "F1;02-02-2026;20;;\nF2;02-02-2026;99;;\nF3;bad;20;;\nF3;02-02-2026;30;;\n"
CONTRACTS = "Form ID;Sign-up date;Customer number\nC1;02-03-2026;K3\n"


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    return pipeline.Worker(connection, settings, "tester")


def run(connection: Connection, statement: str, **values: Any) -> None:
    with transaction(connection) as cursor:
        cursor.execute(statement, values)


# Balance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        "DELETE FROM import_record WHERE record_no = 2",
        "DELETE FROM import_record WHERE record_no = 3",
        "UPDATE import_record SET outcome = 'unchanged' WHERE record_no = 1",
        "UPDATE import_record SET record_no = 7 WHERE record_no = 3",
        "UPDATE import_batch SET created = created + 1",
        "UPDATE import_batch SET records_in_file = records_in_file + 1",
    ],
)
def test_the_database_refuses_to_close_a_batch_whose_ledger_does_not_balance(
    fault: str, worker: pipeline.Worker, connection: Connection, submit: Submit
) -> None:
    seqno = submit(CONTACTS)
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    run(connection, fault)
    for end in ("processed = true", "error_message = 'x'"):
        with pytest.raises(RecordRefused) as refusal:
            run(connection, f"UPDATE import_batch SET status = 'executed', {end}")
        assert refusal.value.constraint in ("import_batch_ledger_balanced", "import_batch_balanced")
    with transaction(connection) as cursor:
        assert rows(cursor, "SELECT status FROM import_batch") == [{"status": "in_progress"}]


def test_a_batch_that_is_not_balanced_is_not_closed_by_its_worker(
    worker: pipeline.Worker, connection: Connection, submit: Submit
) -> None:
    seqno = submit(CONTACTS)
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    run(connection, "UPDATE import_record SET outcome = 'unchanged' WHERE record_no = 1")
    with pytest.raises(RecordRefused):
        pipeline.close(worker, seqno)


def test_counts_that_do_not_add_up_are_refused_whatever_the_ledger_says(
    worker: pipeline.Worker, connection: Connection, submit: Submit
) -> None:
    seqno = submit(CONTACTS)
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    run(connection, "ALTER TABLE import_batch DISABLE TRIGGER import_batch_close")
    with pytest.raises(RecordRefused) as refusal:
        run(
            connection, "UPDATE import_batch SET status = 'executed', processed = true, created = created + 1"
        )
    assert refusal.value.constraint == "import_batch_balanced"


@pytest.mark.parametrize(
    "change",
    ["status = 'waiting'", "created = created - 1, unchanged = unchanged + 1", "processed = false", "file_name = 'x'"],
)  # fmt: skip
def test_a_closed_batch_cannot_be_changed(
    change: str, connection: Connection, submit: Submit, work: Work
) -> None:
    batch = work(submit(CONTACTS))
    with pytest.raises(RecordRefused) as refusal:
        run(connection, f"UPDATE import_batch SET {change}")
    assert refusal.value.constraint == "import_batch_terminal"
    assert work(batch.seqno) == batch


def test_a_batch_is_never_deleted(connection: Connection, submit: Submit, work: Work) -> None:
    work(submit(CONTACTS))
    with pytest.raises(RecordRefused) as refusal:
        run(connection, "DELETE FROM import_batch")
    assert refusal.value.constraint == "import_batch_kept"


@pytest.mark.parametrize("reasons", ["'[]'", "NULL"])
def test_a_reject_without_a_reason_is_refused(connection: Connection, submit: Submit, reasons: str) -> None:
    submit(STATUSES, "result_codes")
    with pytest.raises(RecordRefused) as refusal:
        run(
            connection,
            "INSERT INTO import_record (seqno, domain_id, record_no, outcome, reasons)"
            f" SELECT seqno, domain_id, 1, 'rejected', {reasons} FROM import_batch",
        )
    assert refusal.value.constraint == "import_record_reject_explained"


def test_the_counts_of_a_batch_are_those_of_its_records(submit: Submit, work: Work, became: Became) -> None:
    batch = work(submit(STATUSES, "result_codes"))
    outcomes = [outcome for _, outcome, *_ in became(batch.seqno)]
    assert outcomes == ["updated", "ignored", "rejected", "updated"]
    assert batch.counts == {outcome: outcomes.count(outcome) for outcome in batch.counts}


# Check ---------------------------------------------------------------------------------------------------------

# What promises to be found -> what breaks it. The triggers are off: nobody but an administrator could do these.
BROKEN = {
    "conservation": "DELETE FROM import_record WHERE seqno = 1 AND record_no = 4",
    "dense_record_numbers": "UPDATE import_record SET record_no = 9 WHERE seqno = 1 AND record_no = 4",
    "counts_match_ledger": "UPDATE import_batch SET updated = updated - 1, created = created + 1 WHERE seqno = 1",
    "ledger_has_batch": "INSERT INTO import_record (seqno, domain_id, record_no, outcome) "
    "SELECT 19, domain_id, 1, 'created' FROM import_batch WHERE seqno = 1",
    "ledger_has_place": "UPDATE ledger_volume SET removed_at = now()",
    "terminal_unchanged": "UPDATE import_record SET recorded_at = now() + interval '1 s' WHERE seqno = 1 AND record_no = 1",
    "refusals_keep_raw_cells": "UPDATE import_record SET raw = NULL WHERE seqno = 1 AND outcome = 'ignored'",
    "one_history_entry_per_change": "DELETE FROM status_history WHERE seqno = 1 AND record_no = 1",
    "one_entry_per_record": """INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause, seqno, record_no)
                               SELECT contract_id, domain_id, status_id, '2026-01-15', cause, seqno, record_no
                               FROM status_history WHERE seqno = 1 AND record_no = 1""",
    "current_status_is_last": "UPDATE contract SET date_result = '2026-01-31' WHERE form_id = 'F1'",
    "histories_have_their_target": "UPDATE status_history SET status_id = 0 WHERE seqno = 1 AND record_no = 1",
    "what_is_not_kept_was_before": "UPDATE status_history SET had = '{1}' WHERE seqno = 1 AND record_no = 1",
    "histories_have_place": "UPDATE history_volume SET removed_at = now()",
    "parked_as_the_ledger_says": """INSERT INTO parked_record (seqno, record_no, kind, domain_id, match_key, fields, waits_for, key)
                                    SELECT 1, 1, kind, domain_id, 'F1', '{}', 'status', '20' FROM import_batch WHERE seqno = 1""",
    "given_up_is_told": """INSERT INTO parked_record (seqno, record_no, kind, domain_id, match_key, fields, waits_for, key, outcome,
                                                      given_up_at, reasons)
                           SELECT 1, 1, kind, domain_id, 'F1', '{}', 'status', '20', 'given_up', now(), '[{}]'
                           FROM import_batch WHERE seqno = 1""",
    "contact_targets_exist": "SET session_replication_role = replica; DELETE FROM contact WHERE external_id = 'K1'",
    "contract_targets_exist": "UPDATE import_record SET target_id = 0 WHERE seqno = 3",
    "contact_of_domain": """UPDATE contract SET contact_id = (SELECT min(contact_id) FROM contact),
                                               domain_id = (SELECT domain_id FROM domain WHERE code = 'OTHER')
                            WHERE form_id = 'F2'""",
    "initial_comes_first": """SELECT open_history('status_history', 1, '{2025-12-31}');
                              DELETE FROM status_history WHERE cause = 'initial';
                              INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
                              SELECT contract_id, domain_id, status_id, date_result - 1, 'initial' FROM contract""",
    "timers_give_once": """INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
                           SELECT contract_id, domain_id, status_id, date_result + 1, 'timer'
                           FROM status_history WHERE seqno = 1 AND record_no = 1""",
    "timers_give_what_is_due": """INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
                                  SELECT contract_id, domain_id, status_id, current_date + 1, 'timer'
                                  FROM contract WHERE form_id = 'F1'""",
    "created_once": "UPDATE import_record SET target_id = (SELECT min(target_id) FROM import_record WHERE seqno = 2) "
                    "WHERE seqno = 2 AND outcome = 'created'",
    "updates_changed_something": "UPDATE import_record SET before = NULL WHERE seqno = 4",
    "links_have_their_record": "UPDATE contact_origin SET record_no = 2 WHERE record_no = 1",
    "one_first_origin": """ALTER TABLE contact_origin ALTER entry_id SET GENERATED BY DEFAULT;
                           UPDATE contact_origin SET entry_id = 1""",
    "subscription_is_last_entry": "UPDATE contact_subscription SET opted_in = false",
    "an_opt_out_always_wins": """INSERT INTO subscription_history (contact_id, domain_id, subscription_id, opted_in, seqno, record_no)
                                 SELECT contact_id, domain_id, subscription_id, way, seqno, record_no
                                 FROM subscription_history CROSS JOIN (VALUES (false), (true)) AS new (way)
                                 ORDER BY way""",
    "rolled_back_whole": "ALTER TABLE roll_back_record DISABLE TRIGGER ALL; DELETE FROM roll_back_record WHERE seqno = 6",
    "roll_back_counts": """ALTER TABLE import_batch_roll_back DISABLE TRIGGER ALL;
                           UPDATE import_batch_roll_back SET spared = spared + 1 WHERE seqno = 6""",
    "rolled_back_has_ended": "UPDATE import_batch SET processed = false, status = 'waiting' WHERE seqno = 6",
    "withdrawn_as_rolled_back": "UPDATE status_history SET withdrawn_at = NULL WHERE seqno = 6",
    "restored_is_gone": """INSERT INTO contact (contact_id, domain_id) OVERRIDING SYSTEM VALUE
                           SELECT target_id, 1 FROM roll_back_record WHERE seqno = 5""",
    "nothing_waits_once_rolled_back": """
        INSERT INTO parked_record (seqno, record_no, kind, domain_id, match_key, fields, waits_for, key)
        SELECT 6, 1, kind, domain_id, 'F2', '{}', 'status', '20' FROM import_batch WHERE seqno = 6""",
    "mended_by_a_child": "INSERT INTO mended_record VALUES (2, 1, 1, 1)",
    "files_of_feeds": "UPDATE import_batch SET uploaded_through = 'feed' WHERE seqno = 1",
    "no_staging_left": "CREATE TABLE rowledger_staging.batch_1 ()",
    "kept_numbers_are_true": "UPDATE import_batch_reason SET record_nos = '{1}' WHERE seqno = 1",
    "briefs_are_true": "UPDATE import_batch_brief SET rejected = rejected + 1 WHERE seqno = 1",
    "removed_cells_are_gone": """INSERT INTO import_batch_removed (seqno, what, why, finished_at)
                                 VALUES (1, 'cells', 'retention', now())""",
    "removed_of_roll_backs": """INSERT INTO import_batch_removed (seqno, what, why, finished_at)
                                VALUES (5, 'ledger', 'retention', now())""",
    "removed_of_ended": """CREATE TABLE rowledger_staging.batch_1 ();
                           INSERT INTO import_batch_removed (seqno, what, why) VALUES (1, 'staging', 'retention')""",
    "erased_is_gone": """INSERT INTO erasure (domain_id, by, salt, key_sha256) VALUES (1, 'x', 'x', 'x');
                         INSERT INTO erased_record (seqno, record_no, erasure_id) VALUES (1, 2, 1)""",
}  # fmt: skip


def _work_off_all(worker: pipeline.Worker, submit: Submit, work: Work) -> None:
    work(submit(STATUSES, "result_codes"))
    work(submit(CONTACTS, origins=["WEB", "FAIR"], subscriptions=["NEWS"]))
    work(submit(CONTRACTS, "contracts"))
    work(submit("Customer number,Last name\nK1,Lovelace\n"))
    for file in (
        submit("Customer number,Last name\nK9,Wrong\n"),
        submit("F2;05-02-2026;30;;\n", "result_codes"),
    ):
        roll_back.ask(worker.connection, work(file).seqno, by="tester", why="the wrong file")
        roll_back.work(worker, file)


def test_a_database_that_worked_undisturbed_passes_every_check(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    _work_off_all(worker, submit, work)
    assert [result for result in ledger.check(connection) if result["violations"]] == []


def test_every_check_has_something_that_breaks_it() -> None:
    assert set(BROKEN) == set(queries("check"))


def test_a_check_finds_what_it_promises_to_find(
    worker: pipeline.Worker,
    connection: Connection,
    database_url: str,
    fresh_database: Fresh,
    submit: Submit,
    work: Work,
) -> None:
    _work_off_all(worker, submit, work)
    connection.close()  # a database can be copied while nobody uses it
    for check, statement in BROKEN.items():
        with (
            fresh_database(urlsplit(database_url).path.strip("/")) as url,
            closing(db.connect(url)) as broken,
        ):
            run(broken, "ALTER TABLE import_batch DISABLE TRIGGER ALL")
            run(broken, statement)
            found = {result["check"]: result for result in ledger.check(broken) if result["violations"]}
            assert check in found
            assert found[check]["first"]
            assert found[check]["says"].endswith(".")


# Rejects, to be mended -----------------------------------------------------------------------------------------


def exported(connection: Connection, batch: Batch) -> str:
    template = pipeline.template_of(connection, batch)
    with Path(batch.file_path).open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file)) if template.file.header else []
    out = io.StringIO(newline="")
    ledger.export_rejects(connection, batch, template, header, out)
    return out.getvalue()


def test_rejects_are_mended_and_uploaded_again(
    connection: Connection, submit: Submit, work: Work, became: Became
) -> None:
    """Formula cells are neutral in the export and come back as they were; the column of reasons is left out."""
    cells = ["=1+1", "+Plus", "-50 %", "@home", "'quoted", "＝full", "a;b", 'say ""x""', "K"]
    lines = [f'K{i},nobody,"{cell}",,"{cell}"' for i, cell in enumerate(cells)]
    first = work(submit("\n".join(["Kundennummer,E-Mail,Nachname,Ort,Extra", "K99,ada@example.com,Good,,x", *lines,
                                   *[f"L{i},l{i}@example.com,Good,," for i in range(20)]])))  # fmt: skip
    assert first.counts["rejected"] == len(cells)
    text = exported(connection, first)
    table = list(csv.reader(io.StringIO(text, newline="")))
    assert table[0] == ["Kundennummer", "E-Mail", "Nachname", "Ort", "Extra", "rowledger_reasons"]
    assert [row[2] for row in table[1:7]] == ["'=1+1", "'+Plus", "'-50 %", "'@home", "''quoted", "'＝full"]
    assert table[1][5] == 'rowledger: E-Mail "nobody" is not an email address.'
    numbers = itertools.count()
    mended = "\n".join(
        line.replace("nobody", f"k{next(numbers)}@example.com", 1) for line in text.split("\r\n")
    )
    second = work(submit(mended))
    assert became(second.seqno) == [(number, "created") for number in range(1, len(cells) + 1)]
    with transaction(connection) as cursor:
        query = "SELECT last_name FROM contact WHERE external_id LIKE 'K_' ORDER BY external_id"
        stored = [row["last_name"] for row in rows(cursor, query)]
    assert stored == [cell.replace('""', '"') for cell in cells]


def test_rejects_of_a_file_without_header_are_mended_and_uploaded_again(
    connection: Connection, submit: Submit, work: Work, became: Became
) -> None:
    first = work(
        submit("F1;bad;20;=1+1;x\nF2;02-02-2026;20;;\nF2;03-02-2026;30\nF3;02-02-2026;20;;\n", "result_codes")
    )
    assert became(first.seqno)[0][1:] == ("rejected", "format")
    text = exported(connection, first)
    assert text.splitlines()[0].startswith('"F1";"bad";"20";"\'=1+1";"x";"rowledger: Date Result')
    again = work(submit(text, "result_codes", again=True))
    assert became(again.seqno) == [
        (1, "rejected", "format"),
        (2, "updated"),
    ]  # padded to five fields, record 2 is right
    (record,) = ledger.records(connection, again.seqno, record_no=1)
    assert record["raw"] == ["F1", "bad", "20", "=1+1", "x"]
    mended = work(submit(text.replace("bad", "02-02-2026"), "result_codes"))
    assert became(mended.seqno) == [(1, "updated"), (2, "unchanged")]


def test_a_template_gives_back_its_own_apostrophes_only(
    connection: Connection, submit: Submit, work: Work
) -> None:
    """Without the column of reasons a file is no export of ours, and a leading apostrophe is the user's."""
    work(submit("Customer number,Last name\nK1,'=1+1\n"))
    with transaction(connection) as cursor:
        assert rows(cursor, "SELECT last_name FROM contact") == [{"last_name": "'=1+1"}]


def test_what_waited_for_its_turn_is_recorded_when_it_was_written(
    connection: Connection, submit: Submit, worker: pipeline.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk's transaction began before it waited; what another wrote meanwhile came first."""
    seqnos = {
        "contact": submit("Customer number,Email,Last name,Subscribe to\nK1,k1@example.com,Name,NEWS\n"),
        "contract_status": submit("F1;02-02-2026;20;;\n", "result_codes"),
    }
    lock, turn = loading.lock, {}

    def late(cursor: db.Cursor, batch: Batch) -> None:
        lock(cursor, batch)
        cursor.execute("SELECT pg_sleep(0.05)")
        turn[batch.kind] = rows(cursor, "SELECT clock_timestamp() AS now")[0]["now"]

    monkeypatch.setattr(loading, "lock_shared", late)
    for seqno in seqnos.values():
        pipeline.work(worker, seqno)
    with transaction(connection) as cursor:
        for kind, table in [("contact", "import_record"), ("contact", "subscription_history"),
                            ("contract_status", "status_history")]:  # fmt: skip
            (entry,) = rows(
                cursor, f"SELECT recorded_at FROM {table} WHERE seqno = %(seqno)s", {"seqno": seqnos[kind]}
            )
            assert entry["recorded_at"] >= turn[kind], table


# Reading -------------------------------------------------------------------------------------------------------


def test_records_are_streamed_in_the_order_of_the_file(connection: Connection, submit: Submit) -> None:
    submit(STATUSES, "result_codes")
    run(
        connection,
        "INSERT INTO import_record (seqno, domain_id, record_no, outcome)"
        " SELECT seqno, domain_id, n, 'created' FROM import_batch, generate_series(12000, 1, -1) AS n",
    )
    found = ledger.records(connection, 1)
    assert next(found)["record_no"] == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) AS open FROM pg_cursors WHERE name = 'rowledger_stream'")
        assert cursor.fetchone()["open"] == 1  # type: ignore[index]
    assert [record["record_no"] for record in found] == list(range(2, 12_001))


def test_records_are_found_by_outcome_and_number(connection: Connection, submit: Submit, work: Work) -> None:
    seqno = work(submit(STATUSES, "result_codes")).seqno
    assert [r["record_no"] for r in ledger.records(connection, seqno, ["ignored", "rejected"])] == [2, 3]
    assert [r["outcome"] for r in ledger.records(connection, seqno, record_no=2)] == ["ignored"]
    assert list(ledger.records(connection, seqno, ["ignored"], 1)) == []


def test_the_commonest_reasons_come_first(connection: Connection, submit: Submit, work: Work) -> None:
    seqno = work(submit("F1;bad;20;;\nF2;x;20;;\nF3;02-02-2026;;;\nF3;02-02-2026;30;;\n" + "F1;02-02-2026;20;;\n" * 3,
                        "result_codes")).seqno  # fmt: skip
    found = ledger.common_reasons(connection, seqno, ["rejected"], 10)
    assert [(r["rule"], r["column"], r["records"], r["first_record"]) for r in found] == [
        ("format", "Date Result", 2, 1), ("required", "Result code", 1, 3),
    ]  # fmt: skip
