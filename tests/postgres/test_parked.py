"""Parked records: they wait for a contract or a code, and are replayed by the rules once it exists (docs/rules.md)."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rowledger import batches, contracts, db, ledger, loading, parked, pipeline, reference, replay
from rowledger.db import Connection, rows, transaction
from rowledger.errors import RecordRefused, SetupError, UnknownCode
from rowledger.model import Batch
from rowledger.reference import Reference
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
Became = Callable[[int], list[tuple[Any, ...]]]
Fresh = Callable[..., AbstractContextManager[str]]
WAITING = ("parked", "unknown_contract")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Templates that park, and may be changed."""
    folder = shutil.copytree(settings.templates, tmp_path / "templates")
    text = (folder / "result_codes.yml").read_text(encoding="utf-8")
    for old, new in (
        ("unknown_contract: reject", "unknown_contract: park"),
        ("unknown_status: ignore", "unknown_status: park"),
        ("  max_rejected_share: 0.5\n", ""),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "result_codes.yml").write_text(text, encoding="utf-8")
    return dataclasses.replace(settings, templates=folder)


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    return pipeline.Worker(connection, settings, "tester")


@pytest.fixture
def told(submit: Submit, work: Work, became: Became) -> Callable[[str], list[tuple[Any, ...]]]:
    """Import lines like ``F1 02-02-2026 20`` and tell what became of each."""

    def told(lines: str) -> list[tuple[Any, ...]]:
        batch = work(submit(file(lines), "result_codes"))
        assert batch.succeeded, batch.error_message
        return [one[1:] for one in became(batch.seqno)]

    return told


Told = Callable[[str], list[tuple[Any, ...]]]


def file(lines: str) -> str:
    return "".join(line.strip().replace(" ", ";") + ";;\n" for line in lines.strip().splitlines())


def add(connection: Connection, *, contracts: tuple[str, ...] = (), codes: tuple[str, ...] = ()) -> None:
    """What records wait for: contracts signed up on 2026-01-01, codes of which those above 90 are definitive."""
    demo = {
        "code": "DEMO",
        "name": "Demo",
        "contracts": [{"form_id": form_id, "sign_up_date": "2026-01-01"} for form_id in contracts],
        "statuses": [
            {"code": code, "phase": "NEW", "description": f"Code {code}", "definitive": code > "90"} for code in codes
        ],
    }  # fmt: skip
    reference.load(connection, Reference.model_validate({"domains": [demo]}))


def history(connection: Connection, form_id: str) -> list[tuple[Any, ...]]:
    query = """SELECT h.date_result::text AS day, code, h.seqno, h.record_no
               FROM status_chain AS h JOIN contract USING (contract_id)
               JOIN contract_status ON contract_status.status_id = h.status_id
               WHERE form_id = %(form_id)s AND cause = 'import' ORDER BY h.date_result, h.seqno, h.record_no"""
    with transaction(connection) as cursor:
        return [tuple(r.values()) for r in rows(cursor, query, {"form_id": form_id})]


def current(connection: Connection, form_id: str) -> str | None:
    found = contracts.status_as_of(connection, "DEMO", form_id)
    return found and found.code


def sound(connection: Connection) -> bool:
    return [check for check in ledger.check(connection) if check["violations"]] == []


def replays(connection: Connection, seqno: int) -> list[tuple[Any, ...]]:
    """(record, what it is now, rules) of the parked records of a batch."""
    return [
        (r["record_no"], r["parked"]["outcome"], *(reason["rule"] for reason in r["parked"]["reasons"] or ()))
        for r in ledger.records(connection, seqno, ["parked"])
    ]


# Parking -------------------------------------------------------------------------------------------------------


def test_rule_1_an_unknown_contract_is_parked_where_the_template_says_so(
    told: Told, connection: Connection
) -> None:
    assert told("F9 02-02-2026 20\nF1 02-02-2026 20") == [WAITING, ("updated",)]
    assert sound(connection)


def test_rule_2_an_unknown_code_is_parked_where_the_template_says_so(
    told: Told, connection: Connection
) -> None:
    assert told("F1 02-02-2026 77") == [("parked", "unknown_status")]
    assert current(connection, "F1") == "10"
    assert sound(connection)


def test_a_parked_record_names_what_it_waits_for(told: Told, connection: Connection) -> None:
    told("F9 02-02-2026 77\nF1 02-02-2026 77")
    waits = [(r["parked"]["waits_for"], r["parked"]["key"]) for r in ledger.records(connection, 1)]
    assert waits == [("contract", "F9"), ("status", "77")]


def test_what_waits_is_listed_in_groups(told: Told, connection: Connection) -> None:
    told("F9 02-02-2026 20\nF9 03-02-2026 20\nF8 02-02-2026 20")
    told("F1 02-02-2026 77\nF9 04-02-2026 20")
    add(connection, codes=("77",))
    found = [
        (g["waits_for"], g["key"], g["records"], g["batches"], g["first_seqno"], g["first_record"], g["exists_now"])
        for g in parked.groups(connection, None, None, 50)
    ]  # fmt: skip
    assert found == [
        ("contract", "F9", 3, [1, 2], 1, 1, False),
        ("contract", "F8", 1, [1], 1, 3, False),
        ("status", "77", 1, [2], 2, 1, True),
    ]
    (first,) = parked.groups(connection, "contract_status", "DEMO", 1)
    assert (first["key"], first["all_groups"], first["all_records"]) == ("F9", 3, 5)
    assert (
        parked.groups(connection, None, "OTHER", 50) == parked.groups(connection, "contact", None, 50) == []
    )
    with pytest.raises(UnknownCode, match=r'There is no domain "NONE"\. Domains are: DEMO, OTHER\.'):
        parked.groups(connection, None, "NONE", 50)


# Replay --------------------------------------------------------------------------------------------------------


def test_a_record_is_replayed_once_its_contract_exists_with_its_own_batch_and_number(
    told: Told, worker: pipeline.Worker
) -> None:
    told("F1 02-02-2026 20\nF9 02-02-2026 20")
    assert replay.replay(worker) == {}
    add(worker.connection, contracts=("F9",))
    before = batches.get(worker.connection, 1)
    assert replay.replay(worker) == {1: Counter(updated=1)}
    assert history(worker.connection, "F9") == [("2026-02-02", "20", 1, 2)]
    assert current(worker.connection, "F9") == "20"
    assert replays(worker.connection, 1) == [(2, "updated")]
    assert batches.get(worker.connection, 1) == before  # a closed batch never changes, nor does its ledger
    assert sound(worker.connection)


def test_a_record_is_replayed_once_its_code_exists_or_is_in_use_again(
    told: Told, worker: pipeline.Worker
) -> None:
    with transaction(worker.connection) as cursor:
        cursor.execute("UPDATE contract_status SET retired = true WHERE code = '30'")
    assert told("F1 02-02-2026 77\nF2 02-02-2026 30") == [("parked", "unknown_status")] * 2
    add(worker.connection, codes=("77",))
    assert replay.replay(worker) == {1: Counter(updated=1)}
    with transaction(worker.connection) as cursor:
        cursor.execute("UPDATE contract_status SET retired = false WHERE code = '30'")
    assert replay.replay(worker) == {1: Counter(updated=1)}
    assert [current(worker.connection, form_id) for form_id in ("F1", "F2")] == ["77", "30"]


def test_a_replay_twice_changes_nothing_more(told: Told, worker: pipeline.Worker) -> None:
    told("F9 02-02-2026 20")
    add(worker.connection, contracts=("F9",))
    assert replay.replay(worker, "contract_status") == {1: Counter(updated=1)}
    assert not parked.anything_due(worker.connection, "contract_status")
    assert replay.replay(worker, "contract_status") == {}
    assert len(history(worker.connection, "F9")) == 1


def test_what_another_domain_creates_releases_nothing(told: Told, worker: pipeline.Worker) -> None:
    told("F9 02-02-2026 20\nF1 02-02-2026 77")
    other = {
        "code": "OTHER", "name": "Another", "phases": [{"code": "P", "description": "Phase"}],
        "contracts": [{"form_id": "F9", "sign_up_date": "2026-01-01"}],
        "statuses": [{"code": "77", "phase": "P", "description": "Code 77"}],
    }  # fmt: skip
    reference.load(worker.connection, Reference.model_validate({"domains": [other]}))
    assert replay.replay(worker) == {}


def test_a_replayed_record_has_the_place_in_the_history_that_it_would_have_had(
    told: Told, worker: pipeline.Worker
) -> None:
    """Of one date, its own batch and number decide, not when it was replayed."""
    told("F1 02-02-2026 77\nF1 02-02-2026 20\nF2 02-02-2026 20\nF2 02-02-2026 77\nF3 02-02-2026 77")
    told("F3 02-02-2026 20")
    add(worker.connection, codes=("77",))
    assert replay.replay(worker) == {1: Counter(updated=1, historic=2)}
    assert [current(worker.connection, form_id) for form_id in ("F1", "F2", "F3")] == ["20", "77", "20"]
    assert [entry[1:] for entry in history(worker.connection, "F3")] == [("77", 1, 5), ("20", 2, 1)]
    assert sound(worker.connection)


def test_a_replayed_record_is_judged_by_every_rule(told: Told, worker: pipeline.Worker) -> None:
    told("""F1 03-02-2026 77
            F2 03-02-2026 77
            F3 03-02-2026 77
            F1 04-02-2026 90
            F2 02-02-2026 90
            F9 31-12-2099 20
            F3 05-02-2026 77
            F3 05-02-2026 77""")
    add(worker.connection, contracts=("F9",), codes=("77",))
    counts = Counter(historic=1, rejected=2, updated=2, unchanged=1)
    assert replay.replay(worker) == {1: counts}
    assert replays(worker.connection, 1) == [
        (1, "historic"), (2, "rejected", "definitive_status"), (3, "updated"), (6, "rejected", "future_date"),
        (7, "updated"), (8, "unchanged"),
    ]  # fmt: skip
    assert [len(r["warnings"] or ()) for r in ledger.records(worker.connection, 1)] == [0] * 7 + [1]
    with transaction(worker.connection) as cursor:
        (last,) = rows(cursor, "SELECT warnings FROM parked_record WHERE record_no = 8")
    assert [warning["rule"] for warning in last["warnings"]] == ["duplicate_in_file"]
    assert sound(worker.connection)


def test_a_replayed_definitive_status_ends_its_contract(told: Told, worker: pipeline.Worker) -> None:
    told("F1 03-02-2026 99")
    told("F1 02-02-2026 20")
    add(worker.connection, codes=("99",))
    assert replay.replay(worker) == {1: Counter(updated=1)}
    assert told("F1 04-02-2026 20") == [("rejected", "definitive_status")]


def test_a_record_whose_contract_comes_before_its_code_is_parked_again(
    told: Told, worker: pipeline.Worker
) -> None:
    assert told("F9 02-02-2026 77") == [("parked", "unknown_contract", "unknown_status")]
    add(worker.connection, contracts=("F9",))
    assert replay.replay(worker) == {1: Counter(parked=1)}
    assert replays(worker.connection, 1) == [(1, "parked", "unknown_status")]
    (group,) = parked.groups(worker.connection, None, None, 50)
    assert (group["waits_for"], group["key"]) == ("status", "77")
    assert replay.replay(worker) == {}
    add(worker.connection, codes=("77",))
    assert replay.replay(worker) == {1: Counter(updated=1)}
    assert sound(worker.connection)


def test_a_batch_is_replayed_by_the_template_it_was_uploaded_with(
    told: Told, worker: pipeline.Worker, settings: Settings
) -> None:
    path = settings.templates / "result_codes.yml"
    text = path.read_text(encoding="utf-8").replace("unknown_status: park", "unknown_status: ignore")
    path.write_text(text, encoding="utf-8")
    told("F9 02-02-2026 77")
    path.write_text(text.replace("unknown_status: ignore", "unknown_status: reject"), encoding="utf-8")
    add(worker.connection, contracts=("F9",))
    assert replay.replay(worker) == {1: Counter(ignored=1)}
    assert sound(worker.connection)


def test_a_file_is_not_needed_for_the_replay(told: Told, worker: pipeline.Worker) -> None:
    told("F9 02-02-2026 20")
    Path(batches.get(worker.connection, 1).file_path).unlink()
    add(worker.connection, contracts=("F9",))
    assert replay.replay(worker) == {1: Counter(updated=1)}


def test_a_batch_in_progress_is_replayed_when_it_is_closed(submit: Submit, worker: pipeline.Worker) -> None:
    seqno = submit(file("F9 02-02-2026 20"), "result_codes")
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    add(worker.connection, contracts=("F9",))
    assert not parked.anything_due(worker.connection, "contract_status")
    assert replay.replay(worker) == {}
    pipeline.close(worker, seqno)
    assert parked.anything_due(worker.connection, "contract_status")
    assert replay.replay(worker) == {seqno: Counter(updated=1)}


def test_it_does_not_matter_whether_new_batches_or_replays_come_first(
    submit: Submit, work: Work, told: Told, worker: pipeline.Worker, database_url: str, fresh_database: Fresh
) -> None:
    told("F9 03-02-2026 20\nF9 05-02-2026 30\nF1 02-02-2026 77")
    new = submit(file("F9 04-02-2026 30\nF9 03-02-2026 10\nF1 02-02-2026 20"), "result_codes")
    add(worker.connection, contracts=("F9",), codes=("77",))
    worker.connection.close()
    found = []
    for replays_first in (True, False):
        with (
            fresh_database(urlsplit(database_url).path.strip("/")) as url,
            closing(db.connect(url)) as connection,
        ):
            here = dataclasses.replace(worker, connection=connection)
            if replays_first:
                replay.replay(here)
            pipeline.work(here, new)
            replay.replay(here)
            found.append([(current(connection, f), history(connection, f)) for f in ("F9", "F1")])
            assert sound(connection)
    assert found[0] == found[1]
    assert [status for status, _ in found[0]] == ["30", "20"]


# When something goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 500])
def test_a_replay_does_not_depend_on_the_size_of_chunks(
    told: Told, worker: pipeline.Worker, size: int
) -> None:
    lines = [
        f"F{form} {day:02}-02-2026 {code}" for day in (3, 1, 2) for form in (7, 8, 9) for code in (20, 30)
    ]
    told("\n".join(lines))
    add(worker.connection, contracts=("F7", "F8", "F9"))
    cut = dataclasses.replace(worker, settings=dataclasses.replace(worker.settings, load_chunk=size))
    assert replay.replay(cut) == {1: Counter(updated=18)}
    assert [current(worker.connection, form_id) for form_id in ("F7", "F8", "F9")] == ["30"] * 3
    assert sound(worker.connection)


def test_a_replay_that_was_killed_goes_on_where_it_stopped(
    told: Told, worker: pipeline.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("F7 02-02-2026 20\nF8 02-02-2026 20\nF9 02-02-2026 20")
    add(worker.connection, contracts=("F7", "F8", "F9"))
    cut = dataclasses.replace(worker, settings=dataclasses.replace(worker.settings, load_chunk=1))
    merge, done = loading.replay, []

    def killed(*arguments: Any) -> Counter[str]:
        counts = merge(*arguments)
        done.append(counts)
        if len(done) == 2:
            raise KeyboardInterrupt
        return counts

    monkeypatch.setattr(loading, "replay", killed)
    with pytest.raises(KeyboardInterrupt):
        replay.replay(cut)
    assert [outcome for _, outcome in replays(worker.connection, 1)] == ["updated", "parked", "parked"]
    assert replay.replay(cut) == {1: Counter(updated=2)}
    assert sound(worker.connection)


def test_two_replays_at_once_do_the_work_once(told: Told, worker: pipeline.Worker, database_url: str) -> None:
    forms = tuple(f"G{n}" for n in range(60))
    told("\n".join(f"{form} 02-02-2026 20" for form in forms))
    add(worker.connection, contracts=forms)
    settings = dataclasses.replace(worker.settings, load_chunk=1)
    found: list[Counter[str]] = []

    def run() -> None:
        with closing(db.connect(database_url)) as connection:
            done = replay.replay(pipeline.Worker(connection, settings, "tester"))
            found.append(sum(done.values(), Counter()))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found, Counter()) == Counter(updated=60)
    assert sound(worker.connection)


def test_a_replay_waits_while_another_chunk_of_its_kind_and_domain_is_loaded(
    told: Told, worker: pipeline.Worker, database_url: str
) -> None:
    told("F9 02-02-2026 20")
    add(worker.connection, contracts=("F9",))
    batch = batches.get(worker.connection, 1)
    with closing(db.connect(database_url)) as other:
        replaying = threading.Thread(
            target=replay.replay, args=(dataclasses.replace(worker, connection=other),)
        )
        with transaction(worker.connection) as cursor:
            loading.lock(cursor, batch)
            replaying.start()
            replaying.join(timeout=0.5)
            assert replaying.is_alive()
        replaying.join()
    assert len(history(worker.connection, "F9")) == 1


def test_a_value_that_the_database_refuses_is_rejected_alone(told: Told, worker: pipeline.Worker) -> None:
    told("F7 02-02-2026 20\nF8 02-02-2026 20\nF9 02-02-2026 20")
    add(worker.connection, contracts=("F7", "F8", "F9"))
    with transaction(worker.connection) as cursor:
        cursor.execute("""ALTER TABLE status_history ADD CONSTRAINT no_f8 CHECK (record_no <> 2)""")
    assert replay.replay(worker) == {1: Counter(updated=2, rejected=1)}
    assert replays(worker.connection, 1) == [
        (1, "updated"),
        (2, "rejected", "refused_by_database"),
        (3, "updated"),
    ]
    assert sound(worker.connection)


def test_a_batch_that_cannot_be_replayed_keeps_no_other_waiting(
    told: Told, worker: pipeline.Worker, settings: Settings
) -> None:
    told("F8 02-02-2026 20")
    path = settings.templates / "result_codes.yml"
    path.write_text(path.read_text(encoding="utf-8") + "# another version\n", encoding="utf-8")
    told("F9 02-02-2026 20")
    add(worker.connection, contracts=("F8", "F9"))
    with transaction(worker.connection) as cursor:
        cursor.execute(
            "UPDATE template_version SET source = 'kind: gone' WHERE source NOT LIKE '%another version%'"
        )
    with pytest.raises(SetupError, match="import batch 1"):
        replay.replay(worker)
    assert [outcome for seqno in (1, 2) for _, outcome in replays(worker.connection, seqno)] == [
        "parked",
        "updated",
    ]


def test_a_record_is_parked_and_replayed_only_with_all_it_needs(connection: Connection, told: Told) -> None:
    told("F9 02-02-2026 20")
    for broken in ("outcome = 'updated'", "replayed_at = now()", "waits_for = 'rain'", "key = NULL"):
        with pytest.raises(RecordRefused), transaction(connection) as cursor:
            cursor.execute(f"UPDATE parked_record SET {broken}")


def test_rejects_of_a_replay_are_exported_to_be_mended(told: Told, worker: pipeline.Worker) -> None:
    told("F1 03-02-2026 77\nF1 02-02-2026 90")
    add(worker.connection, codes=("77",))
    replay.replay(worker)
    batch = batches.get(worker.connection, 1)
    template = pipeline.template_of(worker.connection, batch)
    header, line = ledger.rejects_as_csv(worker.connection, batch, template, [])
    assert header == ""
    assert line.startswith('"F1";"03-02-2026";"77";')
    assert "definitive status" in line
