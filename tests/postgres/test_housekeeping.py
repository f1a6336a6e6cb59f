"""What need not be kept any more is removed by the retention of its domain, crash-safe, and ``check`` stays clean."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rowledger import (
    batches,
    control,
    db,
    housekeeping,
    ledger,
    pipeline,
    reruns,
    retention,
    roll_back,
    templates,
    uploads,
)
from rowledger.db import Connection, rows, transaction
from rowledger.errors import NotPossible, RecordRefused, SetupError, UnknownCode
from rowledger.model import Batch
from rowledger.retention import Retention
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
CONTACTS = "Customer number,Email,Last name\nK1,ada@example.com,One\nK2,nobody,Two\n"
BROKEN = "Customer number,Email,Last name\n" + "".join(f"K{n},nobody,Two\n" for n in range(20))
DAYS = Retention.model_validate(
    {"domains": {"DEMO": {"files": 30, "cells": 30, "staging": 30, "upload_keys": 30}}}
)


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    return pipeline.Worker(connection, settings, "tester")


@pytest.fixture
def ended(submit: Submit, work: Work, connection: Connection) -> Callable[..., Batch]:
    """Work a file off, so many days ago."""

    def ended(content: str = CONTACTS, days: int = 31, **options: Any) -> Batch:
        batch = work(submit(content, **options))
        age(connection, batch, days)
        return batch

    return ended


def age(connection: Connection, batch: Batch, days: int) -> None:
    """As if the batch had ended so many days ago, its file with it; nobody but an administrator could do this."""
    shift = {"seqno": batch.seqno, "days": days}
    with transaction(connection) as cursor:
        cursor.execute("ALTER TABLE import_batch DISABLE TRIGGER import_batch_close")
        cursor.execute(
            "UPDATE import_batch SET processed_at = processed_at - make_interval(days => %(days)s)"
            " WHERE seqno = %(seqno)s",
            shift,
        )
        cursor.execute("ALTER TABLE import_batch ENABLE TRIGGER import_batch_close")
        cursor.execute(
            "UPDATE import_record SET recorded_at = recorded_at - make_interval(days => %(days)s)"
            " WHERE seqno = %(seqno)s",
            shift,
        )
    age_file(Path(batch.file_path), days)


def age_file(path: Path, days: int = 2) -> None:
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


def told(removed: list[housekeeping.Removed]) -> dict[tuple[str | None, str], int]:
    return {(one.domain, one.what): one.items for one in removed}


def violated(connection: Connection) -> list[str]:
    return [one["check"] for one in ledger.check(connection) if one["violations"]]


def events(connection: Connection, batch: Batch) -> list[tuple[str, str | None]]:
    return [(one["event"], one["detail"]) for one in batches.events(connection, batch.seqno)]


# Retention -----------------------------------------------------------------------------------------------------


def test_without_a_file_everything_is_kept(tmp_path: Path) -> None:
    kept = retention.read(tmp_path / "retention.yml")
    assert {kept.days("DEMO", what) for what in retention.Days.model_fields} == {None}


def test_the_file_of_the_repository_keeps_everything() -> None:
    assert retention.read(Path(__file__).parents[2] / "include" / "retention.yml") == Retention()


def test_what_a_domain_does_not_mention_is_as_for_others(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(
        "others: {files: 9, cells: 8}\ndomains: {D: {files: 7}, E: {cells: forever}}\n"
    )
    kept = retention.read(tmp_path / "r.yml")
    assert [kept.days(*one) for one in (("D", "files"), ("D", "cells"), ("E", "files"), ("E", "cells"))] == [
        7,
        8,
        9,
        None,
    ]
    assert kept.days("X", "staging") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("others: {files: 0}", "others.files must be a number of days from 1 to 36,500, or forever, not 0."),
        ("others: {files: true}", "others.files must be a number of days"),
        ("domains: {D: {file: 3}}", "domains.D.file is not a known key"),
        ("domain: {}", "domain is not a known key; known are: others, domains"),
        ("- a", "must be a mapping"),
        ("others: {files: 1}\nothers: {files: 2}", "is given twice"),
        ("others: [", "is not valid YAML"),
    ],
)
def test_a_wrong_retention_is_refused_in_words(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(text)
    with pytest.raises(SetupError, match=r"r\.yml") as error:
        retention.read(tmp_path / "r.yml")
    assert sentence in str(error.value)


def test_a_domain_that_does_not_exist_is_refused(worker: pipeline.Worker) -> None:
    with pytest.raises(UnknownCode, match="NOBODY"):
        housekeeping.clean(worker, Retention.model_validate({"domains": {"NOBODY": {"files": 3}}}))


# Files ---------------------------------------------------------------------------------------------------------


def test_the_file_of_a_batch_goes_when_its_days_are_over(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], settings: Settings
) -> None:
    old, young = ended(), ended(CONTACTS.replace("K1", "K3"), days=29)
    expected = housekeeping.forecast(worker, DAYS)
    assert Path(old.file_path).exists()
    assert housekeeping.clean(worker, DAYS) == expected
    assert told(expected) == {("DEMO", "batches whose file is not needed"): 1, (None, "files"): 1,
                              ("DEMO", "refused records without cells"): 1}  # fmt: skip
    assert {one.what: one.bytes for one in expected}["files"] == len(CONTACTS)
    assert not Path(old.file_path).exists()
    assert Path(young.file_path).exists()
    assert ("file not kept", "the domain keeps them for 30 days") in events(connection, old)
    assert housekeeping.clean(worker, DAYS) == []
    assert violated(connection) == []
    template = templates.find_template(settings.templates, "contacts", _kinds())
    with pytest.raises(NotPossible, match="is not kept any more; upload it again"):
        reruns.reprocess(connection, old, template, "suite", by="anna", through="command line")


def test_a_file_stays_as_long_as_one_of_its_batches_needs_it(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], settings: Settings
) -> None:
    old, young = ended(), ended(days=3)
    age_file(Path(old.file_path))
    assert old.file_path == young.file_path
    assert (None, "files") not in told(housekeeping.clean(worker, DAYS))
    assert Path(young.file_path).exists()
    # What is there for another batch only is not there for this one.
    template = templates.find_template(settings.templates, "contacts", _kinds())
    with pytest.raises(NotPossible, match="is not kept any more"):
        reruns.reprocess(connection, old, template, "suite", by="anna", through="command line")
    age(connection, young, 40)
    assert told(housekeeping.clean(worker, DAYS))[None, "files"] == 1
    assert not Path(young.file_path).exists()


def test_a_batch_that_has_not_ended_keeps_its_file_whatever_its_age(
    worker: pipeline.Worker, connection: Connection, submit: Submit
) -> None:
    seqnos = [submit(CONTACTS), submit(CONTACTS.replace("K1", "K3"))]
    control.pause(connection, seqnos[1], by="anna")
    for seqno in seqnos:
        age_file(Path(batches.get(connection, seqno).file_path), 400)
    assert housekeeping.clean(worker, DAYS) == []
    with pytest.raises(RecordRefused) as refusal, transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO import_batch_removed (seqno, what, why) VALUES (%s, 'file', 'retention')", seqnos[:1]
        )
    assert refusal.value.constraint == "import_batch_removed_of_ended"


def test_what_is_being_rolled_back_or_still_to_be_read_is_left_alone(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], submit: Submit
) -> None:
    asked, unread = ended(), batches.get(connection, submit("Customer number,Last name\nK9,Nine\n"))
    roll_back.ask(connection, asked.seqno, by="anna", why="wrong file")
    control.cancel(connection, unread.seqno, by="anna")
    age(connection, unread, 40)
    assert housekeeping.clean(worker, DAYS) == []
    roll_back.work(worker, asked.seqno)
    pipeline.count_unread(worker, unread.seqno)
    assert told(housekeeping.clean(worker, DAYS))["DEMO", "batches whose file is not needed"] == 2
    assert violated(connection) == []


def test_whoever_is_at_a_batch_is_waited_for_and_what_they_have_done_counts(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], database_url: str
) -> None:
    batch = ended()
    with contextlib.closing(db.connect(database_url)) as other, ThreadPoolExecutor(1) as pool:
        with transaction(other) as cursor:
            batches.take(cursor, batch.seqno)
            cleaning = pool.submit(housekeeping.clean, worker, DAYS)
            deadline = time.monotonic() + 20
            waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not db.row(cursor, f"SELECT EXISTS ({waits}) AS waits")["waits"]:  # type: ignore[index]
                assert not cleaning.done()
                assert time.monotonic() < deadline
            cursor.execute(db.queries("roll_back")["ask"], {"seqno": batch.seqno, "by": "anna", "why": "x"})
        assert cleaning.result() == []
    assert Path(batch.file_path).exists()


def test_a_run_that_was_killed_before_the_files_were_gone_is_made_up_for(
    worker: pipeline.Worker, ended: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ended()
    with monkeypatch.context() as patch:
        patch.setattr(housekeeping, "_sweep", lambda worker: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            housekeeping.clean(worker, DAYS)
    assert Path(old.file_path).exists()
    assert told(housekeeping.clean(worker, DAYS)) == {(None, "files"): 1}
    assert not Path(old.file_path).exists()


def test_uploads_that_became_no_batch_and_half_files_go_after_a_day(
    worker: pipeline.Worker, settings: Settings, ended: Callable[..., Batch]
) -> None:
    needed = Path(ended(days=2).file_path)
    lost, fresh = (settings.uploads / (c * 2) / (c * 64) for c in "ab")
    foreign = settings.uploads / "cc" / "notes.txt"
    for path in (lost, fresh, foreign):
        path.parent.mkdir()
        path.write_text("x")
    part, scratch = settings.uploads / "x.part", settings.scratch / "dry-run-x" / "f"
    scratch.parent.mkdir(parents=True)
    part.write_text("xy"), scratch.write_text("x")
    for path in (lost, foreign, part, scratch.parent):
        age_file(path)
    assert told(housekeeping.clean(worker, DAYS)) == {(None, "vanished uploads"): 1, (None, "half files"): 2}
    assert [path.exists() for path in (lost, part, scratch, fresh, foreign, needed)] == [False] * 3 + [
        True
    ] * 3


@pytest.fixture(params=["folder", "store"])
def place(
    request: pytest.FixtureRequest, worker: pipeline.Worker, settings: Settings, tmp_path: Path
) -> tuple[pipeline.Worker, Path]:
    """A worker whose files are kept in a folder, of this machine or of a store; and the folder."""
    if request.param == "folder":
        return worker, settings.uploads
    from rowledger.airflow.storage import ObjectStore

    folder = tmp_path / "objects"
    (folder / hashlib.sha256(CONTACTS.encode()).hexdigest()[:2]).mkdir(parents=True)
    store = ObjectStore(folder.as_uri(), settings.uploads)
    return dataclasses.replace(worker, settings=dataclasses.replace(settings, store=store)), folder


@pytest.mark.parametrize("registered", [True, False], ids=["registered", "about to be"])
def test_a_file_that_is_uploaded_again_while_the_others_are_removed_stays(
    registered: bool, place: tuple[pipeline.Worker, Path], connection: Connection, submit: Submit, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    worker, folder = place
    (tmp_path / "sent.csv").write_text(CONTACTS)
    upload = uploads.keep_file(tmp_path / "sent.csv", worker.settings.uploads)
    file = folder / upload.sha256[:2] / upload.sha256
    age_file(file)
    find, template = (
        housekeeping._unneeded,
        templates.find_template(worker.settings.templates, "contacts", _kinds()),
    )

    def uploaded_again(*asked: Any) -> Any:
        found = find(*asked)
        assert [one.sha256 for one, _ in found[0]] == [upload.sha256]
        uploads.keep_file(tmp_path / "sent.csv", worker.settings.uploads)
        if registered:
            batches.register(connection, upload, template, "suite", "DEMO", by="anna", through="page")
            age_file(file)  # by a clock that is slow
        return found

    with monkeypatch.context() as patched:
        patched.setattr(housekeeping, "_unneeded", uploaded_again)
        assert housekeeping.clean(worker, DAYS) == []
    assert file.exists()


def test_a_folder_that_belongs_to_another_database_is_not_emptied(
    worker: pipeline.Worker, settings: Settings
) -> None:
    for n in range(housekeeping.FEW_FILES):
        path = settings.uploads / f"{n:02x}" / f"{n:02x}".ljust(64, "0")
        path.parent.mkdir(parents=True)
        path.write_text("x")
        age_file(path)
    with pytest.raises(SetupError, match="is it the right database"):
        housekeeping.clean(worker, DAYS)
    assert len(list(settings.uploads.glob("*/*"))) == housekeeping.FEW_FILES


# Cells ---------------------------------------------------------------------------------------------------------


def test_cells_and_what_quotes_them_go_and_outcome_rule_and_column_stay(
    worker: pipeline.Worker,
    connection: Connection,
    ended: Callable[..., Batch],
    everything: Callable[[], str],
) -> None:
    batch = ended("Customer number,Email,Last name\nK1,ada@example.com,One\nK2,canary,Two\nK3,a@b.example,canary,canary\n"
                  + "".join(f"L{n},,Name\n" for n in range(7)))  # fmt: skip
    assert told(housekeeping.clean(worker, DAYS))["DEMO", "refused records without cells"] == 2
    found = list(ledger.records(connection, batch.seqno))
    assert [(r["outcome"], r["raw"]) for r in found[:4]] == [
        ("created", None), ("rejected", []), ("rejected", []), ("created", None)]  # fmt: skip
    assert [[(r["rule"], r["column"], r["value"]) for r in one["reasons"]] for one in found[1:3]] == [
        [("format", "Email", None)], [("too_many_fields", None, None)]]  # fmt: skip
    assert everything().count("canary") == 0
    assert ("cells not kept", "the domain keeps them for 30 days") in events(connection, batch)
    assert batches.get(connection, batch.seqno).counts == batch.counts
    assert violated(connection) == []


def test_the_sentence_of_a_batch_that_failed_quotes_no_cell_any_more(
    worker: pipeline.Worker,
    connection: Connection,
    ended: Callable[..., Batch],
    everything: Callable[[], str],
) -> None:
    batch = ended(BROKEN.replace("nobody", "canary"))
    assert "canary" in (batch.error_message or "")
    housekeeping.clean(worker, DAYS)
    now = batches.get(connection, batch.seqno)
    assert (now.error_message or "").startswith("20 of 20 records are wrong")
    assert "canary" not in everything()
    assert violated(connection) == []


def test_cells_that_a_killed_run_has_left_are_removed_by_the_next(
    worker: pipeline.Worker,
    connection: Connection,
    ended: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
    everything: Callable[[], str],
) -> None:
    ended()
    with monkeypatch.context() as patch:
        patch.setattr(housekeeping, "_strip", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            housekeeping.clean(worker, DAYS)
    assert "nobody" in everything()
    assert violated(connection) == []  # decided, not done
    assert told(housekeeping.clean(worker, Retention()))["DEMO", "refused records without cells"] == 1
    assert "nobody" not in everything()


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("refusals_keep_raw_cells", "UPDATE import_record SET raw = '[]' WHERE outcome = 'rejected' AND seqno = 2"),
        ("refusals_keep_raw_cells", "DELETE FROM import_batch_removed WHERE what = 'cells'"),
        ("removed_cells_are_gone", """UPDATE import_record SET raw = '["x"]' WHERE outcome = 'rejected' AND seqno = 1"""),
        ("removed_cells_are_gone", """UPDATE import_record SET reasons = jsonb_set(reasons, '{0,value}', '"x"')
                                      WHERE outcome = 'rejected' AND seqno = 1"""),
        ("removed_cells_are_gone", """UPDATE import_batch_reason SET examples = '[{"value": "x"}]' WHERE seqno = 1"""),
        ("removed_of_ended", """INSERT INTO import_batch_removed (seqno, what, why) VALUES (1, 'staging', 'retention');
                                CREATE TABLE rowledger_staging.batch_1 ()"""),
    ],
)  # fmt: skip
def test_check_finds_cells_that_are_gone_without_a_word_and_words_without_deeds(
    check: str, fault: str, worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch]
) -> None:
    assert (ended().seqno, ended(days=1).seqno) == (1, 2)
    housekeeping.clean(worker, DAYS)
    assert violated(connection) == []
    with transaction(connection) as cursor:
        cursor.execute(fault)
    assert check in violated(connection)


# Staging, keys -------------------------------------------------------------------------------------------------


def failed(worker: pipeline.Worker, connection: Connection, submit: Submit) -> Batch:
    """A batch that failed when it was being loaded: it can be opened again and goes on."""
    batch = worker.claim(submit(CONTACTS), "validate")
    pipeline.validate(worker, batch.seqno)
    batch = batches.get(connection, batch.seqno)
    with transaction(connection) as cursor:
        unprocessed = ledger.add_unprocessed(cursor, batch, 2)
        batches.fail(cursor, batch, "tester", "set_up", "Something was wrong.", unprocessed)
    return batches.get(connection, batch.seqno)


def test_a_failed_batch_can_be_opened_again_until_its_staging_is_removed(
    worker: pipeline.Worker, connection: Connection, submit: Submit
) -> None:
    batch = failed(worker, connection, submit)
    age(connection, batch, 29)
    assert housekeeping.clean(worker, DAYS) == []
    age(connection, batch, 2)
    only = Retention.model_validate({"others": {"staging": 30}})
    assert told(housekeeping.clean(worker, only)) == {("DEMO", "failed batches without staging"): 1}
    assert tables(connection) == []
    with pytest.raises(NotPossible, match="its staged records are not kept any more"):
        worker.claim(batch.seqno, "load")
    with pytest.raises(RecordRefused) as refusal, transaction(connection) as cursor:
        cursor.execute(db.queries("batches")["reopen"], {"seqno": batch.seqno})
    assert refusal.value.constraint == "import_batch_still_whole"
    assert violated(connection) == []


def test_staging_of_a_batch_that_needs_none_goes_at_once(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], submit: Submit
) -> None:
    done, open_seqno = ended(days=0), submit(CONTACTS)
    pipeline.validate(worker, open_seqno)
    with transaction(connection) as cursor:
        cursor.execute(f"CREATE TABLE rowledger_staging.batch_{done.seqno} ()")
    assert told(housekeeping.clean(worker, Retention())) == {("DEMO", "staging tables left behind"): 1}
    assert tables(connection) == [f"batch_{open_seqno}"]


def test_old_idempotency_keys_go(worker: pipeline.Worker, connection: Connection, submit: Submit) -> None:
    seqno = submit(CONTACTS)
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO upload_key (by, key, fingerprint, seqno, used_at)"
            " SELECT 'anna', 'key ' || days, 'f', %s, now() - make_interval(days => days)"
            " FROM generate_series(28, 33) AS days",
            (seqno,),
        )
    assert told(housekeeping.clean(worker, DAYS)) == {("DEMO", "Idempotency-Keys"): 4}
    with transaction(connection) as cursor:
        left = rows(cursor, "SELECT key FROM upload_key ORDER BY key")
    assert left == [{"key": "key 28"}, {"key": "key 29"}]


def test_many_batches_are_decided_in_short_transactions_and_reported(
    worker: pipeline.Worker,
    connection: Connection,
    ended: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "SIZE", 2)
    for n in range(5):
        ended(CONTACTS.replace("K1", f"L{n}"))
    removed = housekeeping.clean(worker, DAYS)
    assert told(removed)["DEMO", "batches whose file is not needed"] == 5
    reported = housekeeping.runs(connection, 1)
    assert [(one["domain"], one["what"], one["items"]) for one in reported] == [
        (one.domain, one.what, one.items) for one in removed
    ]
    assert all(one["finished_at"] for one in reported)
    with transaction(connection) as cursor:
        decided = rows(
            cursor, "SELECT count(DISTINCT decided_at) AS times FROM import_batch_removed WHERE what = 'file'"
        )
    assert decided == [{"times": 3}]


def tables(connection: Connection) -> list[str]:
    with transaction(connection) as cursor:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'rowledger_staging' ORDER BY tablename"
        return [one["tablename"] for one in rows(cursor, query)]


def _kinds() -> Any:
    from rowledger import loading

    return loading.kinds()
