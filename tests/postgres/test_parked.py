"""Parked records: they wait for a contract or a code, and are replayed by the rules once it exists (docs/rules.md)."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rowledger import (
    batches,
    contracts,
    db,
    giving_up,
    housekeeping,
    ledger,
    loading,
    mending,
    parked,
    pipeline,
    reference,
    replay,
    reruns,
    roll_back,
)
from rowledger.db import Connection, rows, transaction
from rowledger.errors import NotPossible, RecordRefused, SetupError, UnknownCode
from rowledger.giving_up import Thing
from rowledger.model import Batch
from rowledger.reference import Reference
from rowledger.retention import Retention
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
    for broken in ("outcome = 'updated'", "replayed_at = now()", "waits_for = 'rain'", "key = NULL", "given_up_at = now()",
                   "outcome = 'given_up', given_up_at = now()", "outcome = 'given_up', reasons = '[{}]'"):  # fmt: skip
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


# Giving up -----------------------------------------------------------------------------------------------------


def give_up(connection: Connection, seqno: int, thing: Thing | None = None) -> int:
    return giving_up.give_up(connection, seqno, by="mia", why="they never signed", thing=thing)


def given_up(connection: Connection, seqno: int) -> list[tuple[str, str | None]]:
    """(who, detail) of the events that say it."""
    return [(e["by"], e["detail"]) for e in batches.events(connection, seqno) if e["event"] == "given up"]


def test_what_is_given_up_is_never_replayed_and_the_ledger_stays(told: Told, worker: pipeline.Worker) -> None:
    told("F9 02-02-2026 20\nF1 02-02-2026 77\nF2 02-02-2026 20")
    before = batches.get(worker.connection, 1), list(ledger.records(worker.connection, 1, ["parked"]))
    assert give_up(worker.connection, 1) == 2
    assert given_up(worker.connection, 1) == [("mia", "2 parked records: they never signed")]
    add(worker.connection, contracts=("F9",), codes=("77",))
    assert not parked.anything_due(worker.connection, "contract_status")
    assert replay.replay(worker) == {}
    assert history(worker.connection, "F9") == []
    now = list(ledger.records(worker.connection, 1, ["parked"]))
    assert batches.get(worker.connection, 1) == before[0]
    assert [r | {"parked": None} for r in now] == [r | {"parked": None} for r in before[1]]
    assert replays(worker.connection, 1) == [
        (1, "given_up", "unknown_contract", "given_up"),
        (2, "given_up", "unknown_status", "given_up"),
    ]
    assert now[0]["parked"]["reasons"][-1]["message"] == "Nobody waits for it any more: they never signed."
    assert parked.became(worker.connection, 1) == {"given_up": 2}
    assert parked.groups(worker.connection, None, None, 10) == []
    assert sound(worker.connection)


def test_one_thing_is_given_up_in_all_batches_of_its_domain_that_have_ended(
    told: Told, submit: Submit, worker: pipeline.Worker
) -> None:
    told("F9 02-02-2026 20\nF8 02-02-2026 20\nF9 03-02-2026 20")
    told("F9 02-02-2026 77\nF1 02-02-2026 77")
    unended = submit(file("F9 05-02-2026 20"), "result_codes")
    pipeline.validate(worker, unended), pipeline.load(worker, unended)

    def everywhere(thing: Thing, domain: str = "DEMO") -> dict[int, int]:
        return giving_up.give_up_thing(
            worker.connection, "contract_status", domain, thing, by="mia", why="they never signed"
        )

    for wrong in (
        (Thing("contract", "F7"), "DEMO"),
        (Thing("contract", "F9"), "OTHER"),
        (Thing("status", "F9"), "DEMO"),
    ):
        with pytest.raises(NotPossible, match="No record of an import batch that has ended waits for"):
            everywhere(*wrong)
    assert everywhere(Thing("contract", "F9")) == {1: 2, 2: 1}
    assert [parked.became(worker.connection, n) for n in (1, 2, unended)] == [
        {"given_up": 2, "parked": 1}, {"given_up": 1, "parked": 1}, {"parked": 1}
    ]  # fmt: skip
    assert give_up(worker.connection, 2, Thing("status", "77")) == 1
    assert parked.became(worker.connection, 1) == {"given_up": 2, "parked": 1}
    pipeline.close(worker, unended)
    assert everywhere(Thing("contract", "F9")) == {unended: 1}
    assert sound(worker.connection)


def test_what_is_too_long_to_ever_exist_can_be_given_up(told: Told, connection: Connection) -> None:
    told("F1 02-02-2026 77")
    with transaction(connection) as cursor:
        cursor.execute("UPDATE parked_record SET key = repeat('7', 300)")
    (group,) = parked.groups(connection, None, None, 10)
    assert giving_up.give_up_thing(
        connection, "contract_status", "DEMO", Thing("status", group["key"]), by="mia", why="nonsense"
    ) == {1: 1}


def test_what_exists_by_now_is_left_to_the_replay(told: Told, worker: pipeline.Worker) -> None:
    told("F9 02-02-2026 20\nF1 02-02-2026 77\nF8 02-02-2026 20")
    add(worker.connection, contracts=("F9",), codes=("77",))
    assert give_up(worker.connection, 1) == 1
    for asked in (None, Thing("contract", "F9")):
        with pytest.raises(NotPossible, match=r"replayed by the next run: what it waits for exists by now\."):
            give_up(worker.connection, 1, asked)
    with pytest.raises(NotPossible, match="because that exists by now"):
        giving_up.give_up_thing(
            worker.connection, "contract_status", "DEMO", Thing("status", "77"), by="mia", why="x"
        )
    assert replay.replay(worker) == {1: Counter(updated=2)}
    assert [outcome for _, outcome, *_ in replays(worker.connection, 1)] == ["updated", "updated", "given_up"]
    assert sound(worker.connection)


def test_what_cannot_be_given_up_is_refused_in_words(
    told: Told, submit: Submit, worker: pipeline.Worker
) -> None:
    told("F1 02-02-2026 20")
    waiting = submit(file("F9 02-02-2026 20"), "result_codes")
    with pytest.raises(NotPossible, match=r"^No record of import batch 1 waits\.$"):
        give_up(worker.connection, 1)
    with pytest.raises(NotPossible, match=r'^No record of import batch 1 waits for contract "F9"\.$'):
        give_up(worker.connection, 1, Thing("contract", "F9"))
    with pytest.raises(NotPossible, match="Import batch 2 has not ended yet"):
        give_up(worker.connection, waiting)
    pipeline.work(worker, waiting)
    for why in ("", "  ", "a\0b", "x" * 256):
        with pytest.raises(UnknownCode, match="Say why nobody is to wait any more, in one line"):
            giving_up.give_up(worker.connection, waiting, by="mia", why=why)
    roll_back.ask(worker.connection, waiting, by="anna", why="wrong file")
    with pytest.raises(NotPossible, match="Import batch 2 is rolled back, and with it what waited"):
        give_up(worker.connection, waiting)
    with pytest.raises(UnknownCode, match="There is no import batch 77"):
        give_up(worker.connection, 77)
    assert given_up(worker.connection, waiting) == []


def test_what_is_given_up_stands_with_the_rejects_to_be_mended(
    told: Told, worker: pipeline.Worker, settings: Settings
) -> None:
    told("F9 03-02-2026 77\nF8 02-02-2026 20")
    add(worker.connection, contracts=("F9",))
    replay.replay(worker)  # its code is still lacking
    assert give_up(worker.connection, 1, Thing("status", "77")) == 1
    batch = batches.get(worker.connection, 1)
    template = pipeline.template_of(worker.connection, batch)
    _, line = ledger.rejects_as_csv(worker.connection, batch, template, [])
    assert line.startswith('"F9";"03-02-2026";"77";')
    assert "There is no result code" in line
    assert "There is no contract" not in line
    assert "Nobody waits for it any more: they never signed." in line
    assert mending.total(worker.connection, batch) == 1
    (to_mend,) = mending.page(worker.connection, batch, limit=10)
    assert (to_mend["record_no"], to_mend["raw"][:3]) == (1, ["F9", "03-02-2026", "77"])
    mended = [mending.Mended(1, ("F9", "03-02-2026", "20", "", ""))]
    mending.check(worker.connection, batch, mended)
    child = reruns.rerun(
        worker.connection, settings, batch, template, batch.suite_hash, by="mia", through="command line"
    )
    pipeline.work(worker, child)
    assert parked.became(worker.connection, child) == {"parked": 1}
    assert sound(worker.connection)


def test_a_roll_back_leaves_what_is_given_up(told: Told, worker: pipeline.Worker) -> None:
    told("F9 02-02-2026 20\nF8 02-02-2026 20\nF1 02-02-2026 20")
    give_up(worker.connection, 1, Thing("contract", "F9"))
    roll_back.ask(worker.connection, 1, by="anna", why="wrong file")
    roll_back.work(worker, 1)
    assert parked.became(worker.connection, 1) == {"given_up": 1, "withdrawn": 1}
    assert sound(worker.connection)


def test_what_a_replay_has_come_to_is_not_given_up(
    told: Told, worker: pipeline.Worker, database_url: str
) -> None:
    """The contract comes, and its record is replayed, in one transaction: nobody else sees the one without the other."""
    told("F9 02-02-2026 20")
    batch = batches.get(worker.connection, 1)
    template = pipeline.template_of(worker.connection, batch)
    refused: list[str] = []

    def giving() -> None:
        with closing(db.connect(database_url)) as other, pytest.raises(NotPossible) as refusal:
            give_up(other, 1)
        refused.append(str(refusal.value))

    thread = threading.Thread(target=giving)
    with transaction(worker.connection) as cursor:
        loading.lock(cursor, batch)
        cursor.execute(
            "INSERT INTO contract (domain_id, form_id, sign_up_date) VALUES (%s, 'F9', '2026-01-01')", (batch.domain_id,)
        )  # fmt: skip
        assert loading.replay(cursor, batch, template, None, "F9") == Counter(updated=1)
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
    thread.join()
    assert replays(worker.connection, 1) == [(1, "updated")]
    assert refused == ["No record of import batch 1 waits."]
    assert len(history(worker.connection, "F9")) == 1


def wait_for_the_turn(cursor: db.Cursor, waiting: int) -> None:
    """Until so many wait for an advisory lock."""
    deadline = time.monotonic() + 60
    query = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while rows(cursor, query)[0]["n"] < waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("what", ["given up", "rolled back"])
def test_a_replay_does_not_wait_for_whoever_has_the_fence_and_waits_for_their_turn(
    what: str, told: Told, worker: pipeline.Worker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("F9 02-02-2026 20\nF8 02-02-2026 20")
    told("F1 02-02-2026 20")  # whose turn it was last
    add(worker.connection, contracts=("F9",))
    batch = batches.get(worker.connection, 1)
    template = pipeline.template_of(worker.connection, batch)
    monkeypatch.setattr(pipeline, "CHUNK_TRIES", 1)  # whoever is broken off says so

    def apart(do: Callable[[pipeline.Worker], Any]) -> Any:
        with closing(db.connect(database_url)) as other:
            return do(dataclasses.replace(worker, connection=other))

    def fenced(one: pipeline.Worker) -> Any:
        return give_up(one.connection, 1) if what == "given up" else roll_back.work(one, 1).finished_at

    with ThreadPoolExecutor(2) as pool:
        with transaction(worker.connection) as cursor:
            cursor.execute(
                db.queries("loading")["lock"], {"kind": "contract_status", "domain_id": batch.domain_id}
            )
            replaying = pool.submit(apart, lambda one: replay._replay_chunk(one, batch, template, None))
            wait_for_the_turn(cursor, 1)
            if what == "rolled back":  # asked for since the replay has found the batch
                apart(lambda one: roll_back.ask(one.connection, 1, by="anna", why="wrong file"))
            ending = pool.submit(apart, fenced)
            wait_for_the_turn(cursor, 2)
        assert ending.result(60)
        replayed = replaying.result(60)
    assert replayed == (None if what == "rolled back" else ("F9", Counter(updated=1)))
    assert sound(worker.connection)


def test_what_was_killed_while_giving_up_is_done_by_whoever_asks_again(
    told: Told, worker: pipeline.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("F7 02-02-2026 20\nF8 02-02-2026 20\nF9 02-02-2026 20\nF1 02-02-2026 77")
    monkeypatch.setattr(giving_up, "CHUNK", 1)
    note, done = batches.note, []

    def killed(*told: Any) -> None:
        note(*told)
        done.append(told)
        if len(done) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(batches, "note", killed)
    with pytest.raises(KeyboardInterrupt):
        give_up(worker.connection, 1)
    assert parked.became(worker.connection, 1) == {"given_up": 2, "parked": 2}
    assert give_up(worker.connection, 1) == 2
    assert given_up(worker.connection, 1) == [("mia", "1 parked record: they never signed")] * 4
    assert sound(worker.connection)


# By retention --------------------------------------------------------------------------------------------------

WAITS_30_DAYS = Retention.model_validate({"domains": {"DEMO": {"parked": 30}}})


def age(connection: Connection, seqno: int, days: int) -> None:
    """As if the batch had ended so many days ago; nobody but an administrator could do this."""
    with transaction(connection) as cursor:
        cursor.execute("ALTER TABLE import_batch DISABLE TRIGGER import_batch_close")
        cursor.execute(
            "UPDATE import_batch SET processed_at = processed_at - make_interval(days => %s) WHERE seqno = %s", (days, seqno)
        )  # fmt: skip
        cursor.execute(
            "UPDATE import_record SET recorded_at = recorded_at - make_interval(days => %s) WHERE seqno = %s", (days, seqno)
        )  # fmt: skip
        cursor.execute("ALTER TABLE import_batch ENABLE TRIGGER import_batch_close")


def kept_house(worker: pipeline.Worker, days: Retention) -> dict[str, int]:
    """What was removed of DEMO, which the dry run before has foretold."""
    foretold = housekeeping.forecast(worker, days)
    removed = housekeeping.clean(worker, days)
    assert removed == foretold
    return {one.what: one.items for one in removed if one.domain == "DEMO"}


def test_what_has_waited_for_longer_than_the_retention_says_is_given_up(
    told: Told, worker: pipeline.Worker
) -> None:
    told("F9 02-02-2026 20\nF8 02-02-2026 20\nF1 02-02-2026 77")
    told("F9 03-02-2026 20")
    age(worker.connection, 1, 31), age(worker.connection, 2, 29)
    add(worker.connection, contracts=("F8",))
    assert kept_house(worker, Retention()) == {}
    assert kept_house(worker, WAITS_30_DAYS) == {"parked records given up": 2}
    assert given_up(worker.connection, 1) == [("tester", "2 parked records: the domain waits for 30 days")]
    assert [outcome for _, outcome, *_ in replays(worker.connection, 1)] == ["given_up", "parked", "given_up"]
    assert parked.became(worker.connection, 2) == {"parked": 1}
    assert kept_house(worker, WAITS_30_DAYS) == {}
    assert replay.replay(worker) == {1: Counter(updated=1)}
    assert sound(worker.connection)


def test_why_something_was_given_up_is_kept_when_its_cells_are_not(
    told: Told, worker: pipeline.Worker
) -> None:
    told("F9 02-02-2026 20")
    give_up(worker.connection, 1)
    age(worker.connection, 1, 31)
    cells = Retention.model_validate({"others": {"cells": 30}})
    assert kept_house(worker, cells) == {"refused records without cells": 1}
    (record,) = ledger.records(worker.connection, 1)
    lacked, why = record["parked"]["reasons"]
    assert (lacked["rule"], lacked["value"], "F9" in lacked["message"]) == ("unknown_contract", None, False)
    assert (why["rule"], why["message"]) == ("given_up", "Nobody waits for it any more: they never signed.")
    assert sound(worker.connection)


def test_a_roll_back_that_is_asked_for_comes_before_the_retention(
    told: Told, worker: pipeline.Worker
) -> None:
    told("F9 02-02-2026 20")
    age(worker.connection, 1, 31)
    roll_back.ask(worker.connection, 1, by="anna", why="wrong file")
    assert kept_house(worker, WAITS_30_DAYS) == {}
    roll_back.work(worker, 1)
    assert parked.became(worker.connection, 1) == {"withdrawn": 1}


def test_housekeeping_that_was_killed_while_giving_up_does_the_rest_the_next_time(
    told: Told, worker: pipeline.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("F7 02-02-2026 20\nF8 02-02-2026 20\nF9 02-02-2026 20")
    age(worker.connection, 1, 31)
    monkeypatch.setattr(giving_up, "CHUNK", 1)
    note, done = batches.note, []

    def killed(*told: Any) -> None:
        note(*told)
        done.append(told)
        if len(done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(batches, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            housekeeping.clean(worker, WAITS_30_DAYS)
    assert parked.became(worker.connection, 1) == {"given_up": 1, "parked": 2}
    assert kept_house(worker, WAITS_30_DAYS) == {"parked records given up": 2}
    assert sound(worker.connection)


def test_nobody_waits_for_a_dry_run_of_housekeeping(
    told: Told, worker: pipeline.Worker, database_url: str
) -> None:
    told("F9 02-02-2026 20")
    age(worker.connection, 1, 31)
    with closing(db.connect(database_url)) as other, transaction(other) as cursor:
        batch = batches.take(cursor, 1)
        loading.lock(cursor, batch)
        assert [one.what for one in housekeeping.forecast(worker, WAITS_30_DAYS)] == [
            "parked records given up"
        ]
    assert parked.became(worker.connection, 1) == {"parked": 1}
