"""One person is erased from everything, the others are not, ``check`` stays clean, and the receipt says no name."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from rowledger import (
    batches,
    contacts,
    control,
    db,
    erasure,
    lanes,
    ledger,
    pipeline,
    reference,
    reruns,
    roll_back,
)
from rowledger.db import Connection, transaction
from rowledger.erasure import Receipt
from rowledger.errors import FileError, NotPossible, RecordRefused, UnknownCode
from rowledger.model import Batch
from rowledger.reference import Reference
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
HEADER = "Customer number,Email,Last name,City,Origin,Subscribe to\n"
OTHERS = "".join(f"O{n},o{n}@example.com,Other,Oslo,,NEWS\n" for n in range(8))
CANARY = "Quetzalcanary"


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    return pipeline.Worker(connection, settings, "tester")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Also templates for external ids of any letters, and for contacts that are there already."""
    folder = shutil.copytree(settings.templates, tmp_path / "templates")
    text = (folder / "contacts.yml").read_text()
    names = text.replace("    type: code\n    max_length: 40\n", "    max_length: 40\n", 1)
    (folder / "names.yml").write_text(names)
    (folder / "only_known.yml").write_text(text.replace("policies:\n", "policies:\n  mode: update_only\n"))
    return replace(settings, templates=folder)


def violated(connection: Connection) -> list[str]:
    return [one["check"] for one in ledger.check(connection) if one["violations"]]


def counted(receipt: Receipt) -> dict[tuple[str, int | None], int]:
    return {(one.place, one.seqno): one.items for one in receipt.counts}


def kept_files(settings: Settings) -> str:
    return "".join(path.read_text(errors="replace") for path in settings.uploads.glob("*/*"))


def profiles(connection: Connection) -> list[dict[str, Any]]:
    """The others, as they are shown."""
    found = (contacts.profile(connection, "DEMO", f"O{n}", 100).as_dict() for n in range(8))
    return [{key: value for key, value in one.items() if key != "totals"} for one in found]


def test_a_person_is_erased_from_everything_and_nobody_else_is(
    worker: pipeline.Worker, connection: Connection, settings: Settings, submit: Submit, work: Work,
    everything: Callable[[], str],
) -> None:  # fmt: skip
    canary = f"{CANARY}@example.com"
    created = work(submit(f"{HEADER}P1,{canary},{CANARY},{CANARY},,NEWS\n{OTHERS}"))
    updated = work(submit(f"{HEADER}P1,new.{canary},{CANARY}2,,,\nO1,o1@example.com,Other,Oslo,,\n"))
    rejected = work(submit(
        f'{HEADER}P1,{CANARY},{CANARY},,,\nP1,new.{canary},{CANARY},,,,,{CANARY}\nO2,new.{canary},{CANARY},,,\n'
        f'P1,"x"{CANARY},,,,\n,,{CANARY},,,\n{OTHERS}{OTHERS.replace("O", "N").replace("o", "n")}'
    ))  # fmt: skip
    linked = work(
        submit("Form ID;Sign-up date;Customer number\nC1;02-03-2026;P1\nC2;02-03-2026;O1\n", "contracts")
    )
    assert created.counts["created"] == 9
    assert rejected.counts["rejected"] >= 4
    assert linked.counts["created"] == 2
    assert everything().count(CANARY) > 10
    before, others = everything(), profiles(connection)

    expected = erasure.forecast(worker, "DEMO", "P1")
    assert everything() == before
    assert Path(created.file_path).exists()

    receipt = erasure.erase(worker, "DEMO", f"NEW.{canary}")
    assert counted(receipt) == counted(expected)
    # What has no key is not found: one of the rejected records named nobody.
    assert [line for line in everything().splitlines() if CANARY in line and "missing_key" not in line] == []
    assert counted(receipt) == {
        ("contacts", None): 1, ("subscriptions", None): 1, ("subscription history", None): 1, ("links of contracts", None): 1,
        ("records of the ledger", created.seqno): 1, ("records of the ledger", updated.seqno): 1,
        ("records of the ledger", rejected.seqno): 4, ("examples of reasons", rejected.seqno): counted(receipt)["examples of reasons", rejected.seqno],
        **{("uploaded files", seqno): 1 for seqno in (created.seqno, updated.seqno, rejected.seqno)},
    }  # fmt: skip
    assert profiles(connection) == others
    assert CANARY not in kept_files(settings)
    assert Path(linked.file_path).exists()
    with pytest.raises(UnknownCode):
        contacts.profile(connection, "DEMO", "P1", 1)
    assert contacts.profile(connection, "DEMO", "O1", 9).contracts
    assert violated(connection) == []
    assert [r["outcome"] for r in ledger.records(connection, created.seqno)] == ["created"] * 9
    assert batches.get(connection, rejected.seqno) == rejected


def test_a_receipt_says_nobody_s_name_but_whoever_knows_the_key_can_tell(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    work(submit(f"{HEADER}P1,{CANARY}@example.com,Last,,,\n{OTHERS}"))
    given = erasure.erase(worker, "DEMO", f" {CANARY}@Example.com ")
    assert given == erasure.receipt(connection, given.erasure_id)
    assert erasure.receipts(connection, 5) == [given]
    assert "canary" not in str(given.as_dict()).lower()
    assert given.is_about(f"{CANARY}@example.com")
    assert not given.is_about("O1")
    other = erasure.erase(worker, "DEMO", "O1")
    assert other.salt != given.salt
    for table in ("erasure", "erasure_count"):
        with pytest.raises(RecordRefused) as refusal, transaction(connection) as cursor:
            cursor.execute(f"DELETE FROM {table}")
        assert refusal.value.constraint == "erasure_kept"
    with pytest.raises(UnknownCode, match="Nothing is known"):
        erasure.erase(worker, "DEMO", "P1")
    assert len(erasure.receipts(connection, 5)) == 2


def test_what_roll_backs_have_kept_of_a_person_is_erased_too(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work, everything: Callable[[], str]
) -> None:
    first = work(submit(f"{HEADER}P1,{CANARY}@example.com,{CANARY},,,\nO1,o1@example.com,Other,,,\n"))
    for batch in (first,):
        roll_back.ask(connection, batch.seqno, by="anna", why="wrong file")
        roll_back.work(worker, batch.seqno)
    assert CANARY in everything()
    receipt = erasure.erase(worker, "DEMO", f"{CANARY}@example.com")
    assert CANARY not in everything()
    assert counted(receipt)["records of roll backs", first.seqno] == 1
    (mine, other) = ledger.records(connection, first.seqno)
    assert (mine["rolled_back"]["about"], other["rolled_back"]["about"]) == ("erased", "O1")
    assert other["rolled_back"]["removed"]["fields"]["last_name"] == "Other"
    assert violated(connection) == []
    with pytest.raises(RecordRefused) as refusal, transaction(connection) as cursor:
        cursor.execute("UPDATE roll_back_record SET result = 'spared'")
    assert refusal.value.constraint == "roll_back_kept"


def rolled_back(worker: pipeline.Worker, batch: Batch) -> None:
    roll_back.ask(worker.connection, batch.seqno, by="anna", why="wrong emails")
    roll_back.work(worker, batch.seqno)


def test_a_contact_that_was_rolled_back_is_found_by_every_key_of_the_person(
    worker: pipeline.Worker, connection: Connection, settings: Settings, submit: Submit, work: Work,
    everything: Callable[[], str],
) -> None:  # fmt: skip
    first = work(submit(f"{HEADER}P1,old.{CANARY}@example.com,{CANARY},{CANARY},,\n{OTHERS}"))
    rolled_back(worker, first)
    second = work(submit(f"{HEADER},OLD.{CANARY}@example.com,{CANARY},,,\n"))
    rolled_back(worker, second)
    work(submit(f"{HEADER}P1,right.{CANARY}@example.com,{CANARY},,,\n{OTHERS}"))
    expected = erasure.forecast(worker, "DEMO", f"right.{CANARY}@example.com")
    receipt = erasure.erase(worker, "DEMO", f"right.{CANARY}@example.com")
    assert CANARY not in everything()
    assert CANARY not in kept_files(settings)
    for batch in (first, second):
        assert counted(receipt)["records of roll backs", batch.seqno] == 1
        assert counted(receipt)["uploaded files", batch.seqno] == 1
    assert counted(receipt) == counted(expected)
    assert violated(connection) == []


def test_an_email_that_two_people_had_leads_to_no_other_key_of_the_second(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work, everything: Callable[[], str]
) -> None:
    rolled_back(worker, work(submit(f"{HEADER}P2,both.{CANARY}@example.com,{CANARY},,,\n{OTHERS}")))
    work(submit(f"{HEADER}P2,p2@example.com,Second,Oslo,,\n"))
    rolled_back(worker, work(submit(f"{HEADER}P3,both.{CANARY}@example.com,Third,,,\n")))
    rolled_back(worker, work(submit(f"{HEADER}P3,p3@example.com,Third,,,\n")))
    refused = work(submit(f"{HEADER}P2,nobody,Second,,,\nP3,nobody,Third,,,\n{OTHERS}"))
    work(submit(f"{HEADER}P1,both.{CANARY}@example.com,Last,,,\n"))
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert CANARY not in everything()
    assert contacts.profile(connection, "DEMO", "P2", 9).fields["city"] == "Oslo"
    assert [r["raw"][0] for r in ledger.records(connection, refused.seqno) if r["raw"]] == ["P2", "P3"]
    kept = _rows(connection, "SELECT removed FROM roll_back_record WHERE about = 'P3'")
    assert [one["removed"]["fields"]["email"] for one in kept] == ["p3@example.com"]
    assert counted(receipt)["contacts", None] == 1
    assert violated(connection) == []


def test_a_key_that_others_had_by_mistake_goes_from_what_they_had_before(
    worker: pipeline.Worker, connection: Connection, settings: Settings, submit: Submit, work: Work,
    everything: Callable[[], str],
) -> None:  # fmt: skip
    work(submit(f"{HEADER}O1,o1@example.com,Other,,,\nO2,o2@example.com,Other,,,\n"))
    mistaken = work(submit(f"{HEADER}O1,{CANARY}@example.com,Other,,,\n{OTHERS[OTHERS.index('O3') :]}"))
    rolled_back(worker, mistaken)
    work(submit(f"{HEADER}O2,{CANARY}@example.com,Other,,,\n"))
    mended = work(submit(f"{HEADER}O2,o2@example.com,Other,Oslo,,\n"))
    work(submit(f"{HEADER}P1,{CANARY.lower()}@example.com,Last,,,\n"))
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert CANARY.lower() not in everything().lower()
    assert counted(receipt)["values before, of contacts", mended.seqno] == 1
    assert counted(receipt)["records of roll backs", mistaken.seqno] == 1
    assert not Path(mistaken.file_path).exists()
    assert contacts.profile(connection, "DEMO", "O1", 9).fields["email"] == "o1@example.com"
    assert contacts.profile(connection, "DEMO", "O2", 9).fields["email"] == "o2@example.com"
    rolled_back(worker, mended)
    assert contacts.profile(connection, "DEMO", "O2", 9).fields["city"] is None
    assert violated(connection) == []


def test_who_had_the_key_before_and_has_another_now_stays_and_is_listed(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    first = work(submit(f"{HEADER}P1,old@example.com,{CANARY},,,\n{OTHERS}"))
    changed = work(submit(f"{HEADER}P1,new@example.com,{CANARY},,,\n"))
    place = "LEFT: contact that had the key before and has another now"
    assert counted(erasure.erase(worker, "DEMO", "OLD@example.com")) == {(place, changed.seqno): 1}
    (record,) = _rows(connection, f"SELECT before FROM import_record WHERE seqno = {changed.seqno}")
    assert record["before"] == {"email": "old@example.com"}
    rolled_back(worker, changed)
    rolled_back(worker, first)
    work(submit(f"{HEADER}P1,right@example.com,{CANARY},,,\n"))
    receipt = counted(erasure.erase(worker, "DEMO", "old@example.com"))
    assert receipt[place, first.seqno] == 1
    assert receipt["records of roll backs", first.seqno] == 1
    assert contacts.profile(connection, "DEMO", "P1", 9).fields["last_name"] == CANARY
    assert violated(connection) == []


def test_an_external_id_in_capitals_with_an_at_sign_is_erased_as_it_is_written(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work, everything: Callable[[], str]
) -> None:
    key = f"{CANARY}@Canary.example"
    work(submit(f"{HEADER}{key},p1@example.com,Last,,,\nO1,o1@example.com,Other,,,\n"))
    for contact in (key, "O1"):
        linked = work(submit(f"Form ID;Sign-up date;Customer number\nC1;02-03-2026;{contact}\n", "contracts"))
    removed = work(submit(f"Form ID;Sign-up date;Customer number\nC2;02-03-2026;{key}\n", "contracts"))
    rolled_back(worker, removed)
    receipt = erasure.erase(worker, "DEMO", "p1@example.com")
    assert counted(receipt)["values before, of contracts", linked.seqno] == 1
    assert counted(receipt)["records of roll backs", removed.seqno] == 1
    assert CANARY not in everything()
    assert violated(connection) == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_key_is_found_however_its_accents_are_written(
    form: Literal["NFC", "NFD"], worker: pipeline.Worker, connection: Connection, settings: Settings, submit: Submit,
    work: Work, everything: Callable[[], str],
) -> None:  # fmt: skip
    def written(text: str) -> str:
        return unicodedata.normalize(form, text)

    work(submit(f"{HEADER}José Việt,p1@example.com,Last,,,\n{OTHERS}", "names"))
    refused = work(submit(written(f"{HEADER}José Việt,nobody,{CANARY},,,\n") + OTHERS, "names"))
    uncut = work(submit(f'{HEADER}{written("José Việt")},"x"{CANARY},,,,\n{OTHERS}', "names"))
    failed = submit(written(f"José Việt,{CANARY}\nO1,x\n"), "names")
    unread = submit(written(f"{HEADER}José Việt,p1@example.com,{CANARY},,,\n"), "names")
    with pytest.raises(FileError, match=CANARY):
        pipeline.validate(worker, failed)
    control.cancel(connection, unread, by="anna", why="x")
    receipt = erasure.erase(worker, "DEMO", written("José Việt"))
    for batch in (refused, uncut):
        assert counted(receipt)["records of the ledger", batch.seqno] == 1
    for seqno in (failed, unread):
        assert counted(receipt)["uploaded files", seqno] == 1
    assert CANARY not in everything() + kept_files(settings)


def test_letters_that_an_encoding_does_not_have_are_not_left_out_of_a_key(
    worker: pipeline.Worker, connection: Connection, submit: Submit
) -> None:
    unread = submit(f"{HEADER}7,p1@example.com,Other,,,\n")
    control.cancel(connection, unread, by="anna", why="x")
    with pytest.raises(UnknownCode):
        erasure.erase(worker, "DEMO", "Ж7")


def test_a_batch_of_the_person_can_be_rolled_back_afterwards_and_brings_nobody_back(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\nO1,o1@example.com,Other,,,\n"))
    second = work(submit(f"{HEADER}P1,p1@example.com,Changed,,,\nO1,o1@example.com,Changed,,,\n"))
    linked = work(submit("Form ID;Sign-up date;Customer number\nC1;02-03-2026;O1\n", "contracts"))
    changed = work(submit("Form ID;Sign-up date;Customer number\nC1;02-03-2026;P1\n", "contracts"))
    moved = work(submit("Form ID;Sign-up date;Customer number\nC1;02-03-2026;O1\n", "contracts"))
    assert (linked.counts["created"], changed.counts["updated"], moved.counts["updated"]) == (1, 1, 1)
    erasure.erase(worker, "DEMO", "P1")
    for batch in (moved, second):
        roll_back.ask(connection, batch.seqno, by="anna", why="wrong file")
        roll_back.work(worker, batch.seqno)
    with pytest.raises(UnknownCode):
        contacts.profile(connection, "DEMO", "P1", 1)
    assert contacts.profile(connection, "DEMO", "O1", 9).fields["last_name"] == "Other"
    told = {r["about"]: r["reason"] for r in _rows(connection, "SELECT about, reason FROM roll_back_record")}
    assert told == {None: "gone", "O1": None, "C1": None}
    assert violated(connection) == []


def test_failed_batches_are_let_go_if_their_file_names_the_person_and_cannot_be_opened_again(
    worker: pipeline.Worker,
    connection: Connection,
    settings: Settings,
    submit: Submit,
    everything: Callable[[], str],
) -> None:
    text = f"{HEADER}P1,{CANARY}@example.com,{CANARY},,,\n{OTHERS}"
    wrong = submit(f"P1,{CANARY}@example.com\nO1,x\n")
    with pytest.raises(FileError, match=CANARY):
        pipeline.validate(worker, wrong)
    mine, other = submit(text.encode("utf-8")), submit(f"{HEADER}P11,p11@example.com,Not me,,,\n{OTHERS}")
    for seqno in (mine, other):
        batch = pipeline.validate(worker, seqno)
        batch = worker.claim(seqno, "load")
        with transaction(connection) as cursor:
            unprocessed = ledger.add_unprocessed(cursor, batch, batch.records_in_file or 0)
            batches.fail(cursor, batch, "tester", "set_up", "Something was wrong.", unprocessed)
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert counted(receipt) == {
        ("uploaded files", mine): 1, ("staging tables", mine): 1,
        ("uploaded files", wrong): 1, ("sentences of batches", wrong): 1, ("events of batches", wrong): 1,
    }  # fmt: skip
    assert CANARY not in everything() + kept_files(settings)
    with pytest.raises(NotPossible, match="cannot be opened again"):
        worker.claim(mine, "load")
    assert pipeline.work(worker, other).succeeded
    assert violated(connection) == []


def test_a_file_that_another_domain_needs_is_left_and_said_to_be(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    reference.load(connection, Reference.model_validate({"domains": [{"code": "OTHER", "name": "Other"}]}))
    text = "Customer number,Email,Last name\nP1,p1@example.com,Last\n"
    mine, theirs = work(submit(text)), work(submit(text, domain="OTHER"))
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert Path(mine.file_path).exists()
    place = "LEFT: uploaded file of another domain or of a batch that has not ended"
    assert counted(receipt)[place, theirs.seqno] == 1
    assert contacts.profile(connection, "OTHER", "P1", 1).fields["last_name"] == "Last"
    erasure.erase(worker, "OTHER", "P1")
    assert not Path(mine.file_path).exists()


def test_a_batch_that_has_not_ended_is_listed_and_erased_once_it_has(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work, everything: Callable[[], str]
) -> None:
    work(submit(f"{HEADER}P1,p1@example.com,{CANARY},,,\n{OTHERS}"))
    waiting = submit(f"{HEADER}P1,p1@example.com,{CANARY}2,,,\n")
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert counted(receipt)["LEFT: batch that has not ended", waiting] == 0
    assert work(waiting).counts["created"] == 1
    again = erasure.erase(worker, "DEMO", "P1")
    assert counted(again)["uploaded files", waiting] == 1
    assert CANARY not in everything()
    assert violated(connection) == []


def test_a_batch_that_ends_while_files_are_searched_is_erased_as_well(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work, everything: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\n{OTHERS}"))
    waiting = submit(f"{HEADER}P1,p1@example.com,{CANARY},,,\nX,p1@example.com,{CANARY},,,\n{OTHERS}")
    search = erasure._naming

    def late(*given: Any) -> list[int]:
        work(waiting)
        return search(*given)

    monkeypatch.setattr(erasure, "_naming", late)
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert counted(receipt)["records of the ledger", waiting] == 2
    assert CANARY not in everything()
    assert violated(connection) == []


def test_a_batch_that_fails_while_files_are_searched_is_searched_as_well(
    worker: pipeline.Worker, connection: Connection, settings: Settings, submit: Submit, work: Work,
    everything: Callable[[], str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\n{OTHERS}"))
    late, other = (
        submit(f"{HEADER}{first}{''.join(f'Q{n},nobody,x,,,{chr(10)}' for n in range(9))}")
        for first in (f"P1,p1@example.com,{CANARY},,,\n", "O1,o1@example.com,Other,,,\n")
    )
    search, looks = erasure._naming, [late, other]

    def meanwhile(*given: Any) -> list[int]:
        if looks:
            assert work(looks.pop(0)).error_rule == "too_many_rejects"
        return search(*given)

    monkeypatch.setattr(erasure, "_naming", meanwhile)
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert looks == []
    assert counted(receipt)["uploaded files", late] == 1
    assert not [one for one in receipt.counts if one.place.startswith("LEFT") or one.seqno == other]
    assert CANARY not in everything() + kept_files(settings)
    assert Path(batches.get(connection, other).file_path).exists()
    assert violated(connection) == []


def test_what_would_be_erased_is_looked_for_again_as_well(
    worker: pipeline.Worker,
    connection: Connection,
    submit: Submit,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\n{OTHERS}"))
    covers, looks = erasure._Search.covers, [1, 2]
    monkeypatch.setattr(
        erasure._Search, "covers", lambda *given: not (looks and looks.pop()) and covers(*given)
    )
    expected = erasure.forecast(worker, "DEMO", "P1")
    assert looks == []
    assert counted(expected) == counted(erasure.erase(worker, "DEMO", "P1"))


def test_a_key_that_the_person_gets_while_files_are_searched_is_searched_for(
    worker: pipeline.Worker, connection: Connection, settings: Settings, submit: Submit, work: Work,
    everything: Callable[[], str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\n{OTHERS}"))
    refused = work(submit(f"{HEADER}X,new@example.com,,{CANARY},,\n{OTHERS}"))
    unread = submit(f"{HEADER}Y,new@example.com,{CANARY},,,\n")
    control.cancel(connection, unread, by="anna", why="x")
    changing = submit(f"{HEADER}P1,new@example.com,Last,,,\n")
    search, looks = erasure._naming, [changing]

    def meanwhile(*given: Any) -> list[int]:
        if looks:
            assert work(looks.pop()).counts["updated"] == 1
        return search(*given)

    monkeypatch.setattr(erasure, "_naming", meanwhile)
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert refused.counts["rejected"] == 1
    assert counted(receipt)["records of the ledger", refused.seqno] == 1
    assert counted(receipt)["uploaded files", unread] == 1
    assert CANARY not in everything() + kept_files(settings)


def test_a_batch_that_ends_while_records_are_looked_for_is_listed(
    worker: pipeline.Worker,
    connection: Connection,
    submit: Submit,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\n{OTHERS}"))
    waiting = submit("F1;02-02-2026;20;P1;\nF9;02-02-2026;20;P1;\n", "result_codes")
    look, looks = erasure._find, []

    def meanwhile(*given: Any) -> list[int]:
        looks.append(look(*given))
        if len(looks) == 2:
            with closing(db.connect(connection.url)) as another:
                assert pipeline.work(replace(worker, connection=another), waiting).counts["rejected"] == 1
        return looks[-1]

    monkeypatch.setattr(erasure, "_find", meanwhile)
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert batches.get(connection, waiting).succeeded
    assert counted(receipt)["LEFT: batch that has not ended", waiting] == 0


def test_where_the_load_of_a_failed_batch_had_come_to_is_forgotten(
    worker: pipeline.Worker,
    connection: Connection,
    settings: Settings,
    submit: Submit,
    everything: Callable[[], str],
) -> None:
    seqno = submit(f"{HEADER}{CANARY},p1@example.com,Last,,,\n")
    batch = pipeline.validate(worker, seqno)
    batch = worker.claim(seqno, "load")
    with transaction(connection) as cursor:
        lanes.cut(cursor, batch, 1)
        (lane,) = lanes.of(cursor, batch)
        lanes.mark(cursor, batch, lane, f"0:{CANARY}")
        unprocessed = ledger.add_unprocessed(cursor, batch, batch.records_in_file or 0)
        batches.fail(cursor, batch, "tester", "set_up", "Something was wrong.", unprocessed)
    assert CANARY in everything()
    receipt = erasure.erase(worker, "DEMO", CANARY)
    assert counted(receipt)["marks of the load", seqno] == 1
    assert CANARY not in everything()
    assert violated(connection) == []


def test_what_is_staged_and_said_of_the_person_goes_although_the_file_is_gone(
    worker: pipeline.Worker, connection: Connection, submit: Submit, everything: Callable[[], str]
) -> None:
    text = f"{HEADER}P1,{CANARY}@example.com,{CANARY},,,\n"
    wrong, staged, other = (
        submit(f"P1,{CANARY}@example.com\nO1,x\n"),
        submit(text),
        submit(f"{HEADER}{OTHERS}"),
    )
    with pytest.raises(FileError, match=CANARY):
        pipeline.validate(worker, wrong)
    for seqno in (staged, other):
        pipeline.validate(worker, seqno)
        batch = worker.claim(seqno, "load")
        with transaction(connection) as cursor:
            unprocessed = ledger.add_unprocessed(cursor, batch, batch.records_in_file or 0)
            batches.fail(cursor, batch, "tester", "set_up", "Something was wrong.", unprocessed)
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO import_batch_removed (seqno, what, why, finished_at) SELECT seqno, 'file', 'retention', now() FROM import_batch"
        )
    receipt = erasure.erase(worker, "DEMO", f"{CANARY}@example.com")
    assert counted(receipt) == {
        ("staging tables", staged): 1, ("sentences of batches", wrong): 1, ("events of batches", wrong): 1,
    }  # fmt: skip
    assert CANARY not in everything()
    assert violated(connection) == []


def test_what_reasons_say_of_the_person_goes_although_the_cells_were_never_there(
    worker: pipeline.Worker,
    connection: Connection,
    settings: Settings,
    submit: Submit,
    everything: Callable[[], str],
) -> None:
    seqno = submit(f"{HEADER}{CANARY},,Last,,,\n", "only_known")
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    batch = worker.claim(seqno, "close")
    with transaction(connection) as cursor:
        batches.fail(cursor, batch, "tester", "set_up", "Something was wrong.", 0)
    assert CANARY in everything()
    receipt = erasure.erase(worker, "DEMO", CANARY)
    assert counted(receipt)["records of the ledger", seqno] == 1
    assert CANARY not in everything()
    assert violated(connection) == []


def test_who_is_uploaded_again_is_a_new_contact(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    text = f"{HEADER}P1,p1@example.com,Last,,,\n{OTHERS}"
    batch = work(submit(text))
    was = contacts.find(connection, "DEMO", "P1")
    erasure.erase(worker, "DEMO", "P1")
    template = pipeline.template_of(connection, batch)
    with pytest.raises(NotPossible, match="not kept any more"):
        reruns.reprocess(connection, batch, template, "suite", by="anna", through="command line")
    assert work(submit(text)).counts["created"] == 1
    assert contacts.find(connection, "DEMO", "P1") > was
    assert violated(connection) == []


def test_keys_that_only_look_alike_and_keys_that_went_to_others_name_nobody(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\nP2,p2@example.com,Last,,,\n"))
    work(submit(f"{HEADER}P1,first@example.com,Last,,,\n"))
    work(submit(f"{HEADER}P2,p1@example.com,Last,,,\n"))
    alike = work(submit(f"{HEADER}P11,nobody,P1 Street,,,\np1,nobody,x,,,\nX,xp1@example.com.br.,x,,,\n"
                        f"Y,nobody,p1@example.com,,,\n{OTHERS}"))  # fmt: skip
    receipt = erasure.erase(worker, "DEMO", "P1")
    assert ("records of the ledger", alike.seqno) not in counted(receipt)
    assert all(r["raw"] != [] for r in ledger.records(connection, alike.seqno))


def test_refused_records_of_another_kind_that_name_the_person_lose_their_cells(
    worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work, everything: Callable[[], str]
) -> None:
    batch = work(submit(f"F1;02-02-2026;20;{CANARY}@example.com;\nF9;02-02-2026;20;{CANARY}@example.com;\n",
                        "result_codes"))  # fmt: skip
    assert batch.counts["rejected"] == 1
    receipt = erasure.erase(worker, "DEMO", f"{CANARY}@example.com")
    assert counted(receipt)["records of the ledger", batch.seqno] == 1
    assert CANARY not in everything()
    assert violated(connection) == []


@pytest.mark.parametrize(
    "fault",
    [
        "INSERT INTO contact (contact_id, domain_id, external_id) OVERRIDING SYSTEM VALUE SELECT contact_id, 1, 'Z' FROM erased_contact",
        """UPDATE import_record SET before = '{"last_name": "x"}' WHERE seqno = 2 AND record_no = 1""",
        """UPDATE import_record SET warnings = '[{"rule": "x", "value": "y"}]' WHERE seqno = 2 AND record_no = 1""",
    ],
)
def test_check_finds_what_is_left_of_somebody_who_was_erased(
    fault: str, worker: pipeline.Worker, connection: Connection, submit: Submit, work: Work
) -> None:
    work(submit(f"{HEADER}P1,p1@example.com,Last,,,\n"))
    assert work(submit(f"{HEADER}P1,p1@example.com,Changed,,,\n")).counts["updated"] == 1
    erasure.erase(worker, "DEMO", "P1")
    assert violated(connection) == []
    with transaction(connection) as cursor:
        cursor.execute(fault)
    assert violated(connection) == ["erased_is_gone"]


def test_nobody_in_a_domain_that_does_not_exist(worker: pipeline.Worker) -> None:
    with pytest.raises(UnknownCode, match="NOBODY"):
        erasure.erase(worker, "NOBODY", "P1")


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    with transaction(connection) as cursor:
        return db.rows(cursor, query)
