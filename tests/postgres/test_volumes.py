"""The ledger in volumes: made when a batch needs one, dropped whole when all of its batches are over, missed by nobody."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from rowledger import (
    batches,
    contacts,
    db,
    erasure,
    housekeeping,
    ledger,
    loading,
    parked,
    pipeline,
    reruns,
    roll_back,
    suites,
    templates,
)
from rowledger.db import Connection, row, rows, transaction
from rowledger.errors import NotPossible, RecordRefused, SetupError
from rowledger.model import Batch
from rowledger.retention import Retention
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
DATA = Path(__file__).parents[1] / "data"
CONTACTS = "Customer number,Email,Last name\nK1,ada@example.com,One\nK2,nobody,Two\n"
KEEP = Retention.model_validate({"domains": {"DEMO": {"ledger": 30}}})
DROPPED = {"volumes of the ledger": 1}


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    return pipeline.Worker(connection, settings, "tester")


@pytest.fixture
def ended(submit: Submit, work: Work, connection: Connection) -> Callable[..., Batch]:
    """Work a file off, so many days ago."""

    def ended(content: str = CONTACTS, days: int = 31, **options: Any) -> Batch:
        batch = work(submit(content, **options))
        age(connection, batch.seqno, days)
        return batches.get(connection, batch.seqno)

    return ended


@pytest.fixture
def span_over(submit: Submit, connection: Connection) -> Callable[[], int]:
    """Open the next span two days ago; returns the seqno of the batch that needed it."""

    def span_over() -> int:
        with transaction(connection) as cursor:
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence('import_batch', 'seqno'), max(end_seqno)) FROM ledger_volume"
            )
        seqno = submit(CONTACTS, domain="OTHER")
        age(connection, seqno, 2)
        return seqno

    return span_over


def age(connection: Connection, seqno: int, days: int) -> None:
    """As if all that happened to the batch had so many days ago; nobody but an administrator could do this."""
    with transaction(connection) as cursor:
        for statement in (
            "ALTER TABLE import_batch DISABLE TRIGGER import_batch_close",
            "UPDATE import_batch SET processed_at = processed_at - past, started_at = started_at - past,"
            " uploaded_at = uploaded_at - past FROM make_interval(days => %(days)s) AS past WHERE seqno = %(seqno)s",
            "ALTER TABLE import_batch ENABLE TRIGGER import_batch_close",
            "UPDATE import_record SET recorded_at = recorded_at - make_interval(days => %(days)s) WHERE seqno = %(seqno)s",
        ):
            cursor.execute(statement, {"seqno": seqno, "days": days})


def told(removed: list[housekeeping.Removed]) -> dict[str, int]:
    return {one.what: one.items for one in removed}


def volumes(connection: Connection) -> list[str]:
    """The tables of volumes that are there."""
    with transaction(connection) as cursor:
        query = r"SELECT tablename FROM pg_tables WHERE tablename ~ '^import_record_\d+_\d+$' ORDER BY 1"
        return [one["tablename"] for one in rows(cursor, query)]


def spans(connection: Connection) -> list[tuple[int, int]]:
    with transaction(connection) as cursor:
        found = rows(cursor, "SELECT DISTINCT first_seqno, end_seqno FROM ledger_volume ORDER BY 1")
        return [(one["first_seqno"], one["end_seqno"]) for one in found]


def violated(connection: Connection) -> list[str]:
    return [one["check"] for one in ledger.check(connection) if one["violations"]]


def domain_id(connection: Connection, code: str) -> int:
    with transaction(connection) as cursor:
        return int(
            (row(cursor, "SELECT domain_id FROM domain WHERE code = %(code)s", {"code": code}) or {})[
                "domain_id"
            ]
        )


# Opening -------------------------------------------------------------------------------------------------------


def test_records_are_in_the_volume_of_their_span_and_domain(
    connection: Connection, submit: Submit, work: Work, span_over: Callable[[], int]
) -> None:
    seqnos = [
        work(submit(CONTACTS)).seqno,
        work(submit(CONTACTS, domain="OTHER")).seqno,
        work(span_over()).seqno,
    ]
    demo, other = domain_id(connection, "DEMO"), domain_id(connection, "OTHER")
    assert spans(connection) == [(1, 21), (21, 42)]
    assert seqnos == [1, 2, 22]
    with transaction(connection) as cursor:
        found = rows(
            cursor, "SELECT DISTINCT seqno, tableoid::regclass::text AS name FROM import_record ORDER BY 1"
        )
    assert [(one["seqno"], one["name"]) for one in found] == [
        (1, f"import_record_1_{demo}"), (2, f"import_record_1_{other}"), (22, f"import_record_21_{other}")]  # fmt: skip
    assert violated(connection) == []


@pytest.mark.parametrize(
    ("uploads", "width"),
    [
        ({}, 20),
        ({0: 15}, 20),
        ({1: 30, 5: 40, 20: 60}, 70),  # but for the busiest day
        ({1: 10, 5: 400}, 100),  # or a quarter of it, if it was a backlog
        ({31: 500, 40: 500}, 20),
    ],
)
def test_a_span_is_as_wide_as_a_month_has_batches(
    uploads: dict[int, int], width: int, connection: Connection, submit: Submit
) -> None:
    seqno = submit(CONTACTS)
    with transaction(connection) as cursor:
        # Noon: whatever the hour, as many days ago as it says.
        cursor.execute("ALTER TABLE import_batch_brief DROP CONSTRAINT import_batch_brief_seqno_fkey")
        cursor.execute(
            "INSERT INTO import_batch_brief SELECT b.* FROM import_batch_brief, jsonb_each_text(%s) AS one (days, number),"
            " LATERAL generate_series(1, number::integer) AS n,"
            " LATERAL (SELECT now() - make_interval(days => days::integer) AS at) AS past, LATERAL jsonb_populate_record("
            " import_batch_brief, jsonb_build_object('seqno', 1000 * (days::integer + 1) + n, 'uploaded_at', at,"
            " 'day', (at AT TIME ZONE 'UTC')::date)) AS b",
            (str({str(day): number for day, number in uploads.items()}).replace("'", '"'),),
        )
        cursor.execute("DELETE FROM import_batch_brief WHERE seqno = %s", (seqno,))
        assert row(cursor, "SELECT ledger_span_width() AS width") == {"width": width}


def test_two_who_need_the_same_volume_at_once_open_it_once(
    connection: Connection, database_url: str, submit: Submit
) -> None:
    query = (
        "INSERT INTO import_batch (kind, domain_id, template_hash, file_name, file_path, file_bytes, file_sha256,"
        " uploaded_by, uploaded_through) SELECT kind, %s, template_hash, file_name, file_path, file_bytes, file_sha256,"
        " uploaded_by, uploaded_through FROM import_batch WHERE seqno = 1"
    )
    submit(CONTACTS)
    other = domain_id(connection, "OTHER")
    with contextlib.closing(db.connect(database_url)) as second, ThreadPoolExecutor(1) as pool:

        def insert() -> None:
            with transaction(second) as cursor:
                cursor.execute(query, (other,))

        with transaction(connection) as cursor:
            cursor.execute(query, (other,))
            inserting = pool.submit(insert)
            waits_for_lock(cursor, inserting)
        inserting.result()
    assert volumes(connection) == [
        f"import_record_1_{domain_id(connection, 'DEMO')}",
        f"import_record_1_{other}",
    ]
    assert violated(connection) == []


def waits_for_lock(cursor: db.Cursor, doing: Any) -> None:
    deadline = time.monotonic() + 20
    waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted) AS waits"
    while not (row(cursor, waits) or {})["waits"]:
        assert not doing.done(), doing.result()
        assert time.monotonic() < deadline


def test_neither_a_chunk_that_is_written_nor_who_opens_a_volume_waits_for_the_other(
    connection: Connection, database_url: str, submit: Submit, span_over: Callable[[], int]
) -> None:
    seqno, demo = submit(CONTACTS), domain_id(connection, "DEMO")
    insert = (
        "INSERT INTO import_record (seqno, domain_id, record_no, outcome)"
        " SELECT seqno, domain_id, %s, 'created' FROM import_batch WHERE seqno = %s"
    )
    with contextlib.closing(db.connect(database_url)) as loader, transaction(loader) as cursor:
        cursor.execute(insert, (1, seqno))
        with transaction(connection) as impatient:
            impatient.execute("SET lock_timeout = '2s'")
        submit(CONTACTS, domain="OTHER")  # a volume in the span that is written to
        before = len(spans(connection))
        span_over()
        assert len(spans(connection)) == before + 1
        with transaction(connection) as opening:  # and while another is being opened
            opening.execute("SELECT open_ledger_volume(%s, %s)", (1000, demo))
            cursor.execute("SET LOCAL lock_timeout = '2s'")
            cursor.execute(insert, (2, seqno))
            assert (
                len(rows(cursor, "SELECT FROM import_record WHERE seqno = %(seqno)s", {"seqno": seqno})) == 2
            )


def test_a_dry_run_opens_no_volume(
    connection: Connection, settings: Settings, worker: pipeline.Worker, tmp_path: Path
) -> None:
    from rowledger.dry_run import dry_run

    (file := tmp_path / "contacts.csv").write_text(CONTACTS)
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    with dry_run(worker, file, template, suites.suite_hash(template), "DEMO") as trial:
        assert trial.batch.counts["created"] == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) AS n FROM ledger_volume")
            assert cursor.fetchone() == {"n": 0}
    assert volumes(connection) == []


def test_a_batch_cannot_end_with_a_record_in_the_volume_of_another_domain(
    connection: Connection, submit: Submit, worker: pipeline.Worker
) -> None:
    submit(CONTACTS, domain="OTHER")
    seqno, other = submit(CONTACTS), domain_id(connection, "OTHER")
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_record SET domain_id = %s WHERE seqno = %s AND record_no = 2",
            (other, seqno),
        )
    assert violated(connection) == ["ledger_has_batch"]
    with pytest.raises(RecordRefused) as refusal, transaction(connection) as cursor:
        batches.finish(cursor, batches.read(cursor, seqno), "tester")
    assert refusal.value.constraint == "import_batch_of_domain"


def test_a_profile_looks_into_the_volumes_of_its_domain_alone(
    connection: Connection, submit: Submit, work: Work
) -> None:
    work(submit(CONTACTS))
    work(submit(CONTACTS, domain="OTHER"))
    asked = {
        "contact_id": contacts.find(connection, "DEMO", "K1"),
        "domain_id": domain_id(connection, "DEMO"),
        "limit": 9,
    }
    with transaction(connection) as cursor:
        plan = str(rows(cursor, f"EXPLAIN {db.queries('contacts')['records']}", asked))
    assert f"import_record_1_{domain_id(connection, 'DEMO')}" in plan
    assert f"import_record_1_{domain_id(connection, 'OTHER')}" not in plan


# Dropping ------------------------------------------------------------------------------------------------------


def test_a_volume_goes_whole_when_all_of_its_batches_are_over_and_no_other_one(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int]
) -> None:
    old = [ended(), ended("Customer number,Email,Last name\nK3,c@example.com,Three\n")]
    other = ended(domain="OTHER")
    young = ended(CONTACTS.replace("K1", "K4"), days=29)
    housekeeping.clean(worker, KEEP)  # a batch may come to it any time
    assert len(volumes(connection)) == 2
    span_over()
    housekeeping.clean(worker, KEEP)  # one batch is not over
    assert len(volumes(connection)) == 3
    age(connection, young.seqno, 2)
    expected = housekeeping.forecast(worker, KEEP)
    assert len(volumes(connection)) == 3
    assert [(one.domain, one.what, one.items) for one in expected[:2]] == [
        ("DEMO", "volumes of the ledger", 1), ("DEMO", "records of the ledger", 5)]  # fmt: skip
    assert expected[0].bytes > 0
    assert housekeeping.clean(worker, KEEP) == expected
    assert volumes(connection) == [f"import_record_{n}_{domain_id(connection, 'OTHER')}" for n in (1, 21)]
    assert [list(ledger.records(connection, batch.seqno)) for batch in old] == [[], []]
    assert len(list(ledger.records(connection, other.seqno))) == 2
    assert batches.get(connection, old[0].seqno).counts == old[0].counts
    events = [(one["event"], one["detail"]) for one in batches.events(connection, old[1].seqno)]
    assert ("records not kept", "the domain keeps them for 30 days") in events
    with transaction(connection) as cursor:
        removed = rows(
            cursor,
            "SELECT seqno, records, finished_at FROM import_batch_removed WHERE what = 'ledger' ORDER BY 1",
        )
    assert [(one["seqno"], one["records"]) for one in removed] == [(1, 2), (2, 1), (4, 2)]
    assert all(one["finished_at"] for one in removed)
    assert violated(connection) == []
    assert housekeeping.clean(worker, KEEP) == []


def test_what_examples_and_sentences_quote_goes_with_the_ledger(
    worker: pipeline.Worker,
    ended: Callable[..., Batch],
    span_over: Callable[[], int],
    everything: Callable[[], str],
) -> None:
    ended(CONTACTS.replace("nobody", "canary"))
    ended("Customer number,Email,Last name\n" + "".join(f"K{n},canary,Two\n" for n in range(20)))
    span_over()
    assert "canary" in everything()
    assert told(housekeeping.clean(worker, KEEP)).items() >= DROPPED.items()
    assert "canary" not in everything()


def test_a_domain_that_keeps_its_ledger_for_longer_keeps_it(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int]
) -> None:
    ended()
    ended(domain="OTHER")
    span_over()
    keep = Retention.model_validate({"others": {"ledger": 30}, "domains": {"OTHER": {"ledger": "forever"}}})
    assert told(housekeeping.clean(worker, keep)).items() >= DROPPED.items()
    assert len(volumes(connection)) == 2


@pytest.fixture
def parking(settings: Settings, tmp_path: Path) -> str:
    """The name of a template that parks statuses of contracts that do not exist yet."""
    source = (settings.templates / "result_codes.yml").read_text(encoding="utf-8")
    folder = tmp_path / "templates"
    folder.mkdir()
    for file in settings.templates.glob("*.yml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    assert "unknown_contract: reject" in source
    (folder / "parking.yml").write_text(
        source.replace("name: result_codes", "name: parking").replace(
            "unknown_contract: reject", "unknown_contract: park"
        ),
        encoding="utf-8",
    )
    object.__setattr__(settings, "templates", folder)
    return "parking"


def test_a_volume_stays_as_long_as_a_record_of_it_waits_for_a_contract(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    parking: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    batch = ended("F9;02-02-2026;20;;\n", template=parking)
    assert batch.counts["parked"] == 1
    span_over()
    with caplog.at_level("INFO", "rowledger"):
        assert told(housekeeping.clean(worker, KEEP)) == {"refused records without cells": 1}
    assert "from import batch 1 to 20 is kept, as records of import batch 1 still wait" in caplog.text
    assert len(volumes(connection)) == 2
    with transaction(connection) as cursor:
        cursor.execute("UPDATE parked_record SET outcome = 'withdrawn'")
    assert told(housekeeping.clean(worker, KEEP)) == DROPPED | {"records of the ledger": 1}


def test_a_volume_goes_with_what_is_given_up_in_the_same_run(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    parking: str,
) -> None:  # fmt: skip
    batch = ended("F9;02-02-2026;20;;\n", days=61, template=parking)
    span_over()
    for days in (62, 60):
        keep = Retention.model_validate({"domains": {"DEMO": {"ledger": 30, "parked": days}}})
        foretold = housekeeping.forecast(worker, keep)
        removed = housekeeping.clean(worker, keep)
        assert removed == foretold
        assert ("parked records given up" in told(removed)) is (days < 61)
    assert (
        told(removed).items()
        >= (DROPPED | {"records of the ledger": 1, "parked records given up": 1}).items()
    )
    assert parked.became(connection, batch.seqno) == {"given_up": 1}
    assert violated(connection) == []


def test_a_volume_stays_as_long_as_a_roll_back_of_its_domain_is_under_way(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], submit: Submit, work: Work,
    span_over: Callable[[], int],
) -> None:  # fmt: skip
    ended()
    span_over()
    young = work(submit(CONTACTS.replace("One", "Else")))
    roll_back.ask(connection, young.seqno, by="anna", why="wrong file")
    assert told(housekeeping.clean(worker, KEEP)) == {"refused records without cells": 1}
    roll_back.work(worker, young.seqno)
    assert told(housekeeping.clean(worker, KEEP)).items() >= DROPPED.items()
    assert violated(connection) == []


@pytest.fixture
def corrected(
    connection: Connection, ended: Callable[..., Batch], submit: Submit, work: Work, span_over: Callable[[], int]
) -> Batch:  # fmt: skip
    """A batch that created K1, in a young volume; the batch that corrected K1 since is in an old one."""
    later = submit(CONTACTS.replace("One", "Corrected"))
    span_over()
    first = work(submit(CONTACTS))
    work(later)
    age(connection, later, 31)
    age(connection, first.seqno, 32)
    return batches.get(connection, first.seqno)


def last_name(connection: Connection) -> str | None:
    with transaction(connection) as cursor:
        found = row(cursor, "SELECT last_name FROM contact WHERE external_id = 'K1'")
        return found and found["last_name"]


def test_a_roll_back_that_is_asked_for_right_before_it_is_decided_knows_what_came_later(
    worker: pipeline.Worker, connection: Connection, corrected: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = housekeeping._decide

    def asked_for(*told: Any) -> housekeeping.Removed:
        if told[2] == "ledger":
            roll_back.ask(connection, corrected.seqno, by="anna", why="wrong file")
        return decide(*told)

    monkeypatch.setattr(housekeeping, "_decide", asked_for)
    housekeeping.clean(worker, KEEP)
    assert "ledger" not in batches.removed(connection, 1)
    done = roll_back.work(worker, corrected.seqno)
    assert (done.restored, done.spared) == (0, 1)
    assert last_name(connection) == "Corrected"
    assert violated(connection) == []


def test_whoever_decides_waits_for_whoever_is_asking_for_a_roll_back(
    worker: pipeline.Worker, connection: Connection, corrected: Batch, reader: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    note, cleaning = batches.note, list[Future[Any]]()
    with ThreadPoolExecutor(1) as pool:

        def before_it_commits(cursor: db.Cursor, *told: Any) -> None:
            note(cursor, *told)
            cleaning.append(pool.submit(housekeeping.clean, worker, KEEP))
            waits_for_lock(cursor, cleaning[0])

        with monkeypatch.context() as patched:
            patched.setattr(batches, "note", before_it_commits)
            roll_back.ask(reader, corrected.seqno, by="anna", why="wrong file")
        cleaning[0].result(60)
    assert "ledger" not in batches.removed(connection, 1)
    done = roll_back.work(worker, corrected.seqno)
    assert (done.restored, done.spared) == (0, 1)
    assert last_name(connection) == "Corrected"


def test_whoever_asks_for_a_roll_back_waits_for_whoever_decides(
    worker: pipeline.Worker, connection: Connection, corrected: Batch, reader: Connection
) -> None:
    """And is told, if what came later is not kept any more."""
    asked = {"domain_id": domain_id(connection, "DEMO")}
    with ThreadPoolExecutor(1) as pool:
        with transaction(connection) as cursor:
            housekeeping._one_decides(cursor, asked["domain_id"])
            asking = pool.submit(roll_back.ask, reader, corrected.seqno, by="anna", why="wrong file")
            waits_for_lock(cursor, asking)
            cursor.execute(
                "INSERT INTO import_batch_removed (seqno, what, why, days) VALUES (1, 'ledger', 'retention', 30)"
            )
        with pytest.raises(NotPossible, match="import batch 1 ended after it had begun"):
            asking.result(60)


@pytest.fixture
def reader(database_url: str) -> Iterator[Connection]:
    """Somebody who reads the old volume, and takes their time."""
    with contextlib.closing(db.connect(database_url)) as other:
        yield other


def test_a_volume_that_somebody_reads_goes_the_next_time_and_is_not_shown_until_then(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    reader: Connection, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    batch = ended()
    span_over()
    with caplog.at_level("INFO", "rowledger"), transaction(reader) as cursor:
        assert (
            len(rows(cursor, "SELECT FROM import_record WHERE seqno = %(seqno)s", {"seqno": batch.seqno}))
            == 2
        )
        assert told(housekeeping.clean(worker, KEEP)) == {"refused records without cells": 1}
    assert "is in use and goes the next time" in caplog.text
    assert len(volumes(connection)) == 2
    assert violated(connection) == []
    with pytest.raises(NotPossible, match="are not kept any more"):
        roll_back.ask(connection, batch.seqno, by="anna", why="x")
    assert told(housekeeping.clean(worker, Retention())) == DROPPED | {"records of the ledger": 2}
    assert violated(connection) == []


def test_of_two_who_keep_house_at_once_the_second_finds_the_volume_gone(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    reader: Connection, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ended()
    span_over()
    drop, first = housekeeping._drop_volume, list[dict[str, int]]()

    def late(*asked: Any) -> bool:
        """Both have read what is noted; the other one has dropped it by now."""
        monkeypatch.setattr(housekeeping, "_drop_volume", drop)
        first.append(told(housekeeping.clean(dataclasses.replace(worker, connection=reader), KEEP)))
        return drop(*asked)

    monkeypatch.setattr(housekeeping, "_drop_volume", late)
    housekeeping.clean(worker, KEEP)
    (dropped,) = first
    assert dropped.items() >= DROPPED.items()
    with transaction(connection) as cursor:
        assert rows(
            cursor, "SELECT count(*) AS n FROM housekeeping_removed WHERE what = 'volumes of the ledger'"
        ) == [{"n": 1}]
    assert violated(connection) == []


def test_who_reads_or_loads_young_batches_does_not_hold_up_the_drop_of_old_ones(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    reader: Connection,
) -> None:  # fmt: skip
    ended()
    young = span_over()
    with transaction(reader) as cursor:
        cursor.execute(
            "INSERT INTO import_record (seqno, domain_id, record_no, outcome)"
            " SELECT seqno, domain_id, 1, 'created' FROM import_batch WHERE seqno = %s",
            (young,),
        )
        assert told(housekeeping.clean(worker, KEEP)).items() >= DROPPED.items()
        assert len(rows(cursor, "SELECT FROM import_record WHERE seqno = %(seqno)s", {"seqno": young})) == 1
    assert len(volumes(connection)) == 1


def test_a_run_that_was_killed_before_the_drop_is_made_up_for(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ended()
    span_over()
    with monkeypatch.context() as patch:
        patch.setattr(housekeeping, "_drop_volume", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            housekeeping.clean(worker, KEEP)
    assert len(volumes(connection)) == 2
    assert violated(connection) == []
    assert told(housekeeping.clean(worker, Retention())).items() >= DROPPED.items()
    assert violated(connection) == []


def test_cells_and_staging_are_kept_no_longer_than_the_ledger() -> None:
    keep = Retention.model_validate({"others": {"ledger": 30, "cells": 90}, "domains": {"D": {"cells": 9}}})
    assert [keep.days(*one) for one in (("X", "cells"), ("X", "staging"), ("X", "files"), ("D", "cells"))] == [
        30, 30, None, 9]  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        "UPDATE ledger_volume SET removed_at = NULL",
        "DELETE FROM ledger_volume WHERE first_seqno = 21",
        "UPDATE import_batch_removed SET finished_at = NULL",
        "DROP TABLE import_record_21_2",
    ],
)
def test_check_finds_a_volume_that_is_gone_without_a_word_and_words_without_deeds(
    fault: str,
    worker: pipeline.Worker,
    connection: Connection,
    ended: Callable[..., Batch],
    span_over: Callable[[], int],
) -> None:
    assert domain_id(connection, "OTHER") == 2
    ended()
    span_over()
    housekeeping.clean(worker, KEEP)
    assert violated(connection) == []
    with transaction(connection) as cursor:
        cursor.execute(fault)
    assert "ledger_has_place" in violated(connection)


# Said in words -------------------------------------------------------------------------------------------------


@pytest.fixture
def gone(worker: pipeline.Worker, ended: Callable[..., Batch], span_over: Callable[[], int]) -> Batch:
    """A batch of which the ledger does not have the records any more."""
    batch = ended()
    span_over()
    housekeeping.clean(worker, KEEP)
    return batch


SENTENCE = "The records of import batch 1 are not kept any more; its domain keeps them for 30 days."


def test_what_needs_the_records_is_refused_in_words(
    gone: Batch, worker: pipeline.Worker, connection: Connection, settings: Settings
) -> None:
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    suite_hash = suites.suite_hash(template)
    for refused in (
        lambda: roll_back.ask(connection, gone.seqno, by="anna", why="x"),
        lambda: roll_back.plan(connection, gone.seqno, 5),
        lambda: reruns.rerun(
            connection, settings, gone, template, suite_hash, by="anna", through="command line"
        ),
        lambda: batches.refuse_removed_cells(connection, gone.seqno),
    ):
        with pytest.raises(NotPossible) as refusal:
            refused()
        assert str(refusal.value) == SENTENCE
    # Its file is still there.
    again = reruns.reprocess(connection, gone, template, suite_hash, by="anna", through="command line")
    assert batches.get(connection, again).records_in_file is None


def test_a_roll_back_that_is_done_is_told_also_when_the_records_are_gone(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int]
) -> None:
    batch = ended()
    roll_back.ask(connection, batch.seqno, by="anna", why="wrong file")
    done = roll_back.work(worker, batch.seqno)
    span_over()
    assert told(housekeeping.clean(worker, KEEP)).items() >= DROPPED.items()
    assert roll_back.ask(connection, batch.seqno, by="bert", why="again") == done
    assert violated(connection) == []


def test_what_roll_backs_have_kept_goes_with_the_ledger_and_what_they_did_stays(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    everything: Callable[[], str],
) -> None:  # fmt: skip
    header = "Customer number,Email,Last name\n"
    batch = ended(header + "canary1,canary1@example.com,Canary\ncanary2,canary2@example.com,Canary\n")
    ended(header + "canary2,new@example.com,Canary\n")
    ended(header + "C3,canary2@example.com,Other\n")
    changed = ended(header + "C3,c3@example.com,Canary\n")
    for seqno in (changed.seqno, batch.seqno):
        roll_back.ask(connection, seqno, by="anna", why="wrong file")
        roll_back.work(worker, seqno)
    kept = rolled_back(connection)
    assert [(one["about"], one["result"]) for one in kept] == [
        ("canary1", "restored"), ("canary2", "spared"), ("C3", "restored")]  # fmt: skip
    span_over()
    housekeeping.forecast(worker, KEEP)
    assert rolled_back(connection) == kept
    with transaction(connection) as cursor:  # whose own fields are not what this is about
        cursor.execute("UPDATE contact SET external_id = 'x' || contact_id, email = NULL, last_name = NULL")
    assert told(housekeeping.clean(worker, KEEP)).items() >= DROPPED.items()
    assert "canary" not in everything().lower()
    assert rolled_back(connection) == [
        one | {"about": "erased", "removed": {} if one["removed"] else None} for one in kept
    ]
    assert "removed_of_roll_backs" not in violated(connection)


def rolled_back(connection: Connection) -> list[dict[str, Any]]:
    with transaction(connection) as cursor:
        return rows(cursor, "SELECT * FROM roll_back_record ORDER BY seqno, record_no")


def test_what_roll_backs_had_kept_of_ledgers_that_were_dropped_before_goes_at_once(
    database_before: Callable[[str], AbstractContextManager[Connection]],
) -> None:
    with database_before("0028") as connection:
        with transaction(connection) as cursor:
            cursor.execute("INSERT INTO domain (code, name) VALUES ('DEMO', 'Demo'), ('OTHER', 'Other')")
            cursor.execute(BEFORE.partition("INSERT INTO import_record")[0])
            cursor.execute(
                "INSERT INTO import_batch_roll_back (seqno, asked_by, why) VALUES (1, 'anna', 'x'), (2, 'anna', 'x')"
            )
            cursor.execute(
                "INSERT INTO roll_back_record (seqno, record_no, target_id, about, result, removed)"
                " VALUES (1, 1, 1, 'K1', 'restored', '{\"fields\": {}}'), (2, 1, 2, 'K2', 'restored', '{\"fields\": {}}')"
            )
            cursor.execute(
                "INSERT INTO import_batch_removed (seqno, what, why, days, finished_at) VALUES (1, 'ledger', 'retention', 9, now())"
            )
        assert "0028_roll_backs_not_kept.sql" in db.migrate(connection)
        assert [(one["about"], one["removed"]) for one in rolled_back(connection)] == [
            ("erased", {}), ("K2", {"fields": {}})]  # fmt: skip


def test_a_failed_batch_cannot_be_opened_again(
    worker: pipeline.Worker, ended: Callable[..., Batch], span_over: Callable[[], int]
) -> None:
    batch = ended("Customer number,Email,Last name\n" + "".join(f"K{n},nobody,Two\n" for n in range(20)))
    assert batch.failed
    span_over()
    housekeeping.clean(worker, KEEP)
    with pytest.raises(NotPossible, match=r"cannot be opened again: .*its records are not kept any more"):
        worker.claim(batch.seqno, "validate")


def test_a_roll_back_that_cannot_know_what_came_later_is_refused(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    submit: Submit, work: Work,
) -> None:  # fmt: skip
    late = ended()
    span_over()
    first = work(submit(CONTACTS.replace("One", "Else")))
    age(connection, first.seqno, 32)  # it had begun before the other one ended
    housekeeping.clean(worker, KEEP)
    with pytest.raises(NotPossible, match=f"import batch {late.seqno} ended after it had begun"):
        roll_back.ask(connection, first.seqno, by="anna", why="x")


def test_a_person_is_found_in_the_files_of_batches_without_a_ledger(
    worker: pipeline.Worker, connection: Connection, ended: Callable[..., Batch], span_over: Callable[[], int],
    everything: Callable[[], str],
) -> None:  # fmt: skip
    batch = ended("Customer number,Email,Last name\nP1,p1@example.com,Canary\n")
    span_over()
    assert told(housekeeping.clean(worker, KEEP)).items() >= DROPPED.items()
    assert [one["seqno"] for one in contacts.profile(connection, "DEMO", "P1", 9).records] == []
    assert Path(batch.file_path).exists()
    erasure.erase(worker, "DEMO", "P1")
    assert not Path(batch.file_path).exists()
    assert "Canary" not in everything()
    assert violated(connection) == []


# The ledger of before ------------------------------------------------------------------------------------------

BEFORE = """
INSERT INTO template_version (template_hash, name, kind, source, suite_hash) VALUES ('h', 'contacts', 'contact', '', 's');
INSERT INTO import_batch (kind, domain_id, template_hash, file_name, file_path, file_bytes, file_sha256, uploaded_by,
    uploaded_through, uploaded_at, status, records_in_file, created, updated, rejected, unprocessed)
SELECT 'contact', 1 + n % 2, 'h', n || '.csv', n || '.csv', 1, 'x' || n, 'anna', 'page',
       '2026-01-01'::timestamptz + n * interval '1 day', 'cancelled', 4, 1, 1, 1, 1
FROM generate_series(1, 70) AS n;
INSERT INTO import_record (seqno, record_no, outcome, target_id, reasons, warnings, raw, before, recorded_at)
SELECT seqno, record_no, (ARRAY['created', 'updated', 'rejected', 'unprocessed'])[record_no],
       CASE WHEN record_no < 3 THEN seqno END,
       CASE record_no WHEN 3 THEN jsonb_build_array(jsonb_build_object('rule', 'required', 'column', seqno)) END,
       CASE record_no WHEN 1 THEN '[{"rule": "x"}]'::jsonb END, CASE record_no WHEN 3 THEN '["a", "b"]'::jsonb END,
       CASE record_no WHEN 2 THEN '{"last_name": "x"}'::jsonb END, uploaded_at + interval '1 hour'
FROM import_batch, generate_series(1, 4) AS record_no;
"""


@pytest.fixture
def before(database_before: Callable[[str], AbstractContextManager[Connection]]) -> Iterator[Connection]:
    """A database as it was before volumes, with two domains; the next migrations are those that came since."""
    with database_before("0025") as connection:
        with transaction(connection) as cursor:
            cursor.execute("INSERT INTO domain (code, name) VALUES ('DEMO', 'Demo'), ('OTHER', 'Other')")
        yield connection


LEDGER = "SELECT * FROM import_record ORDER BY seqno, record_no"


def test_the_ledger_of_before_is_kept_in_volumes_of_its_months(before: Connection) -> None:
    with transaction(before) as cursor:
        cursor.execute(BEFORE)
        # As none has been written since there are reasons; what is there stays there.
        cursor.execute("ALTER TABLE import_record DROP CONSTRAINT import_record_reject_explained")
        cursor.execute("UPDATE import_record SET reasons = NULL WHERE seqno = 3 AND record_no = 3")
        cursor.execute(
            "ALTER TABLE import_record ADD CONSTRAINT import_record_reject_explained CHECK (outcome NOT IN"
            " ('rejected', 'ignored', 'parked') OR coalesce(jsonb_array_length(reasons), 0) > 0) NOT VALID"
        )
        was = rows(cursor, LEDGER)
    assert "0025_volumes.sql" in db.migrate(before)
    with transaction(before) as cursor:
        now = rows(cursor, LEDGER)
        domains = {
            one["seqno"]: one["domain_id"]
            for one in rows(cursor, "SELECT seqno, domain_id FROM import_batch")
        }
    assert [{k: v for k, v in one.items() if k != "domain_id"} for one in now] == was
    assert all(one["domain_id"] == domains[one["seqno"]] for one in now)
    # January from 1, February from 31 and March from 59, each cut at the twenties before; the last as wide as ever.
    assert spans(before) == [(1, 20), (20, 40), (40, 90)]
    assert len(volumes(before)) == 6
    with pytest.raises(RecordRefused) as refusal, transaction(before) as cursor:
        cursor.execute(
            "INSERT INTO import_record (seqno, domain_id, record_no, outcome) SELECT seqno, domain_id, 9, 'rejected'"
            " FROM import_batch WHERE seqno = 4"
        )
    assert refusal.value.constraint == "import_record_reject_explained"
    with pytest.raises(RecordRefused) as refusal, transaction(before) as cursor:
        cursor.execute(
            "INSERT INTO import_record SELECT * FROM import_record WHERE seqno = 4 AND record_no = 1"
        )
    assert refusal.value.sqlstate == "23505"
    assert {name for name in violated(before) if name.startswith("ledger")} == set()


def test_an_empty_ledger_of_before_is_ready_for_its_first_batch(before: Connection) -> None:
    db.migrate(before)
    assert volumes(before) == []
    with transaction(before) as cursor:
        cursor.execute(BEFORE.partition("INSERT INTO import_record")[0])
    assert spans(before)[0][0] == 1
    assert spans(before)[-1][1] > 70


def test_a_ledger_with_records_of_no_batch_is_not_migrated(before: Connection) -> None:
    with transaction(before) as cursor:
        cursor.execute(BEFORE)
        cursor.execute("INSERT INTO import_record (seqno, record_no, outcome) VALUES (99, 1, 'created')")
        was = rows(cursor, LEDGER)
    with pytest.raises(SetupError, match="records without a batch"):
        db.migrate(before)
    with transaction(before) as cursor:
        assert rows(cursor, LEDGER) == was
