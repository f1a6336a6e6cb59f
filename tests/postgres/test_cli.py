"""The command line as people and scripts meet it: what it prints, its exit codes, sentences in place of tracebacks."""

from __future__ import annotations

import csv
import getpass
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import cli, pipeline
from rowledger.db import Connection
from rowledger.settings import Settings

ROOT = Path(__file__).parents[2]
CONTACTS = ["--kind", "contact", "--domain", "DEMO", "--template", "contacts"]
STATUSES = ["--kind", "contract_status", "--domain", "DEMO", "--template", "result_codes"]
GOOD = "Customer number,Email,Last name\nK1,ada@example.com,Ångström\nK2,nobody,[red]Brontë[/red]\n"


@dataclass(frozen=True)
class Told:
    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Call = Callable[..., Told]
Write = Callable[..., str]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    database_url: str,
    tmp_path: Path,
) -> Iterator[Call]:
    """Run the command line in this process."""
    monkeypatch.setenv("ROWLEDGER_DATABASE_URL", database_url)
    monkeypatch.setenv("ROWLEDGER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(ROOT / "include" / "templates"))
    monkeypatch.setenv("COLUMNS", "120")
    log = logging.getLogger("rowledger")
    handlers = list(log.handlers)

    def call(*arguments: str | Path) -> Told:
        monkeypatch.setattr(sys, "argv", ["rowledger", *map(str, arguments)])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsysbinary.readouterr()
        assert b"Traceback" not in told.err
        assert b"Rowledger itself failed" not in told.err
        code = end.value.code
        return Told(code if isinstance(code, int) else 0, told.out, told.err.decode())

    yield call
    log.handlers[:] = handlers


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str = GOOD, name: str = "contacts.csv") -> str:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def worked(call: Call, write: Write) -> Call:
    """Batch 1 has a created and a rejected contact, batch 2 an updated, an ignored and a rejected status; 3 failed."""
    call("submit", write(), *CONTACTS)
    call(
        "submit",
        write(
            "F1;02-02-2026;20;;\nF2;02-02-2026;99;Weiß;=1+1\nF3;bad;20;;\nF3;01-02-2026;20;;\n", "codes.csv"
        ),
        *STATUSES,
    )
    call("submit", write(GOOD.replace(",", ";"), "agency.csv"), *CONTACTS)
    assert call("work", "--all-waiting").code == 3
    return call


def test_a_batch_that_waits_for_something_says_what_for(call: Call, write: Write, tmp_path: Path) -> None:
    call("submit", write(), *CONTACTS)
    (tmp_path / "home" / "scratch").write_text("a file where the folder should be")
    assert call("work", "1").code == 75
    reason = "The worker cannot use its disk: File exists"
    assert f"Waits: {reason}" in " ".join(call("show", "1").out.split())
    assert f"Waits: {reason[:20]}" in " ".join(call("list").out.split())
    assert reason in call("list", "--json").json[0]["waits_because"]
    (tmp_path / "home" / "scratch").unlink()
    assert call("work", "1").code == 0
    assert "Waits" not in call("show", "1").out


# Parked records -----------------------------------------------------------------------------------------------


@pytest.fixture
def parking(call: Call, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Batch 1 waits for contract F9 twice, and for code 77; contract F1 of the latter is at a definitive status."""
    folder = tmp_path / "templates"
    shutil.copytree(ROOT / "include" / "templates", folder)
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(folder))
    template = folder / "result_codes.yml"
    text = template.read_text(encoding="utf-8").replace("unknown_contract: reject", "unknown_contract: park")
    template.write_text(text.replace("unknown_status: ignore", "unknown_status: park"), encoding="utf-8")
    lines = "F9;02-02-2026;20;;\nF9;03-02-2026;30;;\nF1;02-02-2026;90;;\nF1;03-02-2026;77;Weiß;=1+1\n"
    call("submit", write(lines, "codes.csv"), *STATUSES)
    assert call("work", "--all-waiting").code == 0
    return call


def exists(call: Call, tmp_path: Path, what: str) -> None:
    path = tmp_path / "more.yml"
    path.write_text(f"domains: [{{code: DEMO, name: Demo, {what}}}]", encoding="utf-8")
    assert call("load-reference", path).code == 0


CONTRACT = "contracts: [{form_id: F9, sign_up_date: 2026-01-01}]"
CODE = "statuses: [{code: '77', phase: NEW, description: Late}]"


def test_parked_tells_what_waits_for_what(parking: Call, tmp_path: Path) -> None:
    told = parking("parked").out
    assert re.search(r'2 +DEMO +contract "F9" +#1 .* #1, record 1', told)
    assert re.search(r'1 +DEMO +result code "77" +#1 .* #1, record 4', told)
    assert "exists now" not in told
    assert "1 more record waits for 1 other contract or code" in parking("parked", "--limit", "1").out
    exists(parking, tmp_path, CONTRACT)
    told = parking("parked").out
    assert 'contract "F9" (exists now)' in told
    assert "rowledger replay" in told
    first, second = parking("parked", "--kind", "contract_status", "--domain", "DEMO", "--json").json
    assert (first["waits_for"], first["key"], first["records"], first["exists_now"]) == (
        "contract",
        "F9",
        2,
        True,
    )
    assert (second["waits_for"], second["batches"], second["first_record"]) == ("status", [1], 4)
    assert parking("parked", "--kind", "contact").out == "No record is parked.\n"
    assert (
        parking("parked", "--domain", "NONE").err == 'There is no domain "NONE". Domains are: DEMO, OTHER.\n'
    )


def test_replay_says_what_became_of_parked_records_and_so_does_their_batch(
    parking: Call, tmp_path: Path
) -> None:
    assert parking("replay").err == "No parked record waits for something that exists by now.\n"
    exists(parking, tmp_path, CONTRACT)
    assert parking("replay").out == "Import batch #1 codes.csv: 2 parked records replayed: 2 updated.\n"
    assert (
        "Of the parked records 1 still waits (see: rowledger parked), 2 became updated."
        in parking("show", "1").out
    )
    exists(parking, tmp_path, CODE)
    assert parking("replay", "--kind", "contract_status", "--json").lines == [
        {"seqno": 1, "replayed": {"rejected": 1}}
    ]
    shown = parking("show", "1").out
    assert "4 records: 1 updated, 3 parked" in shown
    assert "Of the parked records 2 became updated, 1 became rejected." in shown
    assert "rowledger rejects 1" in shown
    assert parking("show", "1", "--json").json["replayed"] == {"rejected": 1, "updated": 2}


def test_work_all_waiting_replays_too(parking: Call, tmp_path: Path) -> None:
    exists(parking, tmp_path, CONTRACT)
    assert "2 parked records replayed: 2 updated." in parking("work", "--all-waiting").out
    exists(parking, tmp_path, CODE)
    assert parking("work", "--all-waiting", "--json").lines == [{"seqno": 1, "replayed": {"rejected": 1}}]


def test_records_tell_what_became_of_parked_ones(parking: Call, tmp_path: Path) -> None:
    exists(parking, tmp_path, CONTRACT)
    exists(parking, tmp_path, CODE)
    parking("replay")
    lines = parking("records", "1").out.splitlines()
    assert [" ".join(line.split()[:2]) for line in lines] == [
        "1 parked", "updated replayed", "2 parked", "updated replayed", "3 updated", "4 parked", "rejected replayed"
    ]  # fmt: skip
    assert "definitive_status: Contract" in lines[-1]
    (rejected,) = parking("records", "1", "--outcome", "rejected", "--json").lines
    assert (rejected["outcome"], rejected["parked"]["outcome"]) == ("parked", "rejected")
    rows = list(csv.DictReader(io.StringIO(parking("records", "1", "--csv").out)))
    assert [row["replayed"] for row in rows] == ["updated", "updated", "", "rejected"]
    assert parking("rejects", "1").out.startswith(
        '"F1";"03-02-2026";"77";"Weiß";"\'=1+1";"rowledger: Contract'
    )


def test_give_up_ends_the_waiting_of_a_batch_or_for_a_thing(parking: Call, tmp_path: Path) -> None:
    assert "To wait no longer for what never comes: rowledger give-up" in parking("parked").out
    told = parking("give-up", "--contract", "F9", "--domain", "DEMO", "--why", "never signed")
    assert told.out == "Import batch #1 codes.csv: 2 parked records are given up.\n"
    shown = parking("show", "1").out
    assert "Of the parked records 1 still waits (see: rowledger parked), 2 were given up." in shown
    assert "given up by" in shown
    assert "2 parked records: never signed" in shown
    assert "rowledger rejects 1" in shown
    lines = parking("records", "1").out.splitlines()
    assert re.fullmatch(
        r" +given up +\d{4}-\d\d-\d\d \d\d:\d\d: given_up: Nobody waits for it any more: never signed\.",
        lines[1],
    )
    assert parking("give-up", "1", "--code", "77", "--why", "x", "--json").lines == [
        {"seqno": 1, "given_up": 1}
    ]
    assert parking("show", "1", "--json").json["replayed"] == {"given_up": 3}
    assert parking("records", "1", "--csv").out.count('"given_up"') == 3
    assert parking("rejects", "1").err == "3 rejected records of import batch 1.\n"
    assert parking("parked").out == "No record is parked.\n"


def test_give_up_says_what_it_needs(parking: Call) -> None:
    for arguments, sentence in (
        ((), "Name one import batch seqno; or a domain, and --contract or --code.\n"),
        (("1", "--domain", "DEMO"), "Name one import batch seqno; or a domain, and --contract or --code.\n"),
        (("1", "--contract", "F9", "--code", "77"), "Say --contract or --code, not both.\n"),
        (("1",), "Say why nobody is to wait any more, in one line of at most 255 characters.\n"),
        (("77", "--why", "x"), "There is no import batch 77.\n"),
        (("1", "--contract", "F1", "--why", "x"), 'No record of import batch 1 waits for contract "F1".\n'),
    ):
        told = parking("give-up", *arguments)
        assert (told.err, told.code) == (sentence, 2), arguments


# A file once more ---------------------------------------------------------------------------------------------


def test_rejects_that_the_encoding_of_the_current_template_does_not_have_are_not_sent_as_something_else(
    call: Call, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "templates"
    shutil.copytree(ROOT / "include" / "templates", folder)
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(folder))
    for name in ("Łukasz", "Brontë"):
        seqno = call("submit", write(f"Customer number,Last name\nK 2,{name}\n"), *CONTACTS, "--json").json[
            "seqno"
        ]
        call("work", str(seqno))
    template = folder / "contacts.yml"
    template.write_text(
        template.read_text(encoding="utf-8").replace("encoding: utf-8", "encoding: iso-8859-1", 1),
        encoding="utf-8",
    )
    refused = call("rerun", "1", "--template", "current")
    assert refused.code == 2
    assert 'The character "Ł" of a rejected record cannot be written in iso-8859-1' in refused.err
    assert call("rerun", "2", "--template", "current", "--json").json["parent_seqno"] == 2
    call("work", "--all-waiting")
    assert call("records", "3", "--json").json["raw"][1] == "Brontë"


def test_a_batch_is_reprocessed_as_a_batch_of_its_own_with_the_old_or_the_current_template(
    call: Call, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "templates"
    shutil.copytree(ROOT / "include" / "templates", folder)
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(folder))
    call("submit", write("Customer number,Last name\nK1,Ada\nK 2,Brontë\n"), *CONTACTS, "--origin", "FAIR")
    assert call("reprocess", "1", "--template", "old").code == 2  # it has not ended yet
    call("work", "1")
    before = call("records", "1", "--json").lines
    template = folder / "contacts.yml"
    template.write_text(
        template.read_text(encoding="utf-8").replace("type: code", "type: text", 1), encoding="utf-8"
    )

    old = call("reprocess", "1", "--template", "old", "--json").json
    current = call("reprocess", "1", "--template", "current", "--json").json
    assert (old["seqno"], old["parent_seqno"], old["template_changed"]) == (2, 1, False)
    assert (current["seqno"], current["template_changed"]) == (3, True)
    assert call("work", "--all-waiting").code == 0
    assert call("show", "2", "--json").json["counts"] == {"unchanged": 1, "rejected": 1}
    assert call("show", "3", "--json").json["counts"] == {"unchanged": 1, "created": 1}
    # The batch itself stays as it ended; both name each other, and what was named at its upload counts again.
    assert call("records", "1", "--json").lines == before
    first = call("show", "1", "--json").json
    assert first["children"] == [2, 3]
    assert [event["event"] for event in first["events"]] == [
        "uploaded",
        "executed",
        "reprocessed",
        "reprocessed",
    ]
    assert call("show", "3", "--json").json["parent_seqno"] == 1
    assert "as import batch 3" in call("show", "1").out
    assert "Takes records of import batch 1 once more" in call("show", "3").out


def test_a_file_that_is_not_kept_any_more_cannot_be_reprocessed(
    call: Call, write: Write, tmp_path: Path
) -> None:
    call("submit", write(), *CONTACTS)
    call("work", "1")
    shutil.rmtree(tmp_path / "home" / "uploads")
    told = call("reprocess", "1", "--template", "old")
    assert told.code == 2
    assert told.err == "The file of import batch 1 is not kept any more; upload it again.\n"


def test_records_that_are_not_kept_any_more_are_told_of_and_not_looked_for(
    call: Call, write: Write, connection: Connection
) -> None:
    call("submit", write("Customer number,Last name\nK1,Ada\nK 2,Brontë\nK3,\n"), *CONTACTS)
    call("work", "1")
    assert "To mend the rejected records" in call("show", "1").out
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO import_batch_removed (seqno, what, why, days) VALUES (1, 'ledger', 'retention', 30);"
            " INSERT INTO import_batch_event (seqno, event, by) VALUES (1, 'records not kept', 'airflow')"
        )
    sentence = "The records of import batch 1 are not kept any more; its domain keeps them for 30 days.\n"
    for asked in (["records", "1"], ["rejects", "1"], ["rerun", "1"], ["roll-back", "1", "--why", "x"],
                  ["roll-back", "1", "--dry-run"]):  # fmt: skip
        told = call(*asked)
        assert (told.code, told.err) == (2, sentence), asked
    shown = call("show", "1").out
    assert "records not kept by airflow" in shown
    assert "To mend the rejected records" not in shown
    assert call("show", "1", "--json").json["counts"]["rejected"] == 2


def test_rejected_records_are_rerun_as_they_were_or_mended(call: Call, write: Write) -> None:
    call(
        "submit", write("Customer number,Last name\nK1,Ada\nK 2,Brontë\nK3,\n"), *CONTACTS, "--origin", "FAIR"
    )
    told = call("rerun", "1")
    assert (told.code, told.err) == (
        2,
        "Import batch 1 has not ended yet; its rejected records can be rerun then.\n",
    )
    call("work", "1")
    assert "rowledger rerun 1 mend.csv" in call("show", "1").out.replace("\n", " ")
    as_they_were = call("rerun", "1", "--json").json
    assert (as_they_were["seqno"], as_they_were["parent_seqno"]) == (2, 1)
    call("work", "2")
    assert call("show", "2", "--json").json["counts"] == {"rejected": 2}
    mended = write(
        call("rejects", "1").out.replace("K 2", "K2").replace('"K3",""', '"K3","Curie"'), "mend.csv"
    )
    assert call("rerun", "1", mended).out == "3\n"
    call("work", "3")
    assert call("show", "3", "--json").json["counts"] == {"created": 2}
    assert call("show", "1", "--json").json["children"] == [2, 3]
    assert call("contact", "K2", "--domain", "DEMO", "--json").json["origins"][0]["code"] == "FAIR"
    told = call("rerun", "3")
    assert (told.code, told.err) == (2, "Import batch 3 has no rejected records.\n")


def test_a_batch_is_paused_resumed_and_cancelled(call: Call, write: Write) -> None:
    call("submit", write(), *CONTACTS)
    assert call("pause", "1", "--why", "wrong month?").out.startswith("Import batch #1 ")
    told = call("work", "1")
    assert told.code == 4
    assert "was paused at record 0" in told.err
    assert "wrong month?" in told.err
    assert call("resume", "1", "--json").json["status"] == "waiting"
    cancelled = call("cancel", "1", "--why", "it is")
    assert "is cancelled. 0 records are written and stay" in cancelled.out.replace("\n", " ")
    assert call("show", "1", "--json").json["events"][-1]["detail"] == "at record 0: it is"
    assert call("resume", "1").code == 2


# From a file to its ledger -------------------------------------------------------------------------------------


def test_a_file_is_submitted_worked_off_and_shown(call: Call, write: Write) -> None:
    submitted = call("submit", write(), *CONTACTS)
    assert (submitted.code, submitted.out) == (0, "1\n")
    assert "waiting" in call("show", "1").out
    told = call("work", "1")
    assert told.code == 0
    assert "Import batch #1 contacts.csv  executed" in told.out
    assert "☑ Import completed   ☑ Processed" in told.out
    assert "2 records: 1 created, 1 rejected" in told.out
    assert "2 of" not in told.out


def test_a_finished_batch_stays_as_it_is(worked: Call) -> None:
    before = worked("show", "1", "--json").json
    assert worked("work", "1").code == 0
    assert worked("show", "1", "--json").json == before


def test_show_tells_why_and_what_can_be_done(worked: Call) -> None:
    told = worked("show", "1")
    assert 'Email "nobody" is not an email address.' in told.out
    assert "rowledger rejects 1 > mend.csv" in told.out
    assert "uploaded by" in told.out
    failed = worked("show", "3")
    assert "☐ Import completed   ☐ Processed" in failed.out
    assert failed.out.count("The fields are separated by semicolon (;), the template expects comma (,).") == 1
    assert failed.code == 0


def test_list_shows_the_newest_first(worked: Call) -> None:
    lines = [line.split() for line in worked("list").out.splitlines() if "executed" in line]
    assert [line[:2] for line in lines] == [["3", "agency.csv"], ["2", "codes.csv"], ["1", "contacts.csv"]]
    assert "separated by semicolon" in worked("list", "--kind", "contact").out
    assert [batch["seqno"] for batch in worked("list", "--json", "--kind", "contact").json] == [3, 1]
    assert [batch["seqno"] for batch in worked("list", "--json", "--before", "3", "--limit", "1").json] == [2]
    assert "There are no such import batches." in worked("list", "--status", "waiting").out


def test_list_of_nothing_says_how_to_begin(call: Call) -> None:
    assert call("list").out == "There are no import batches; upload a file with: rowledger submit\n"
    assert call("list", "--json").json == []


def test_records_tell_outcome_and_reason(worked: Call) -> None:
    assert worked("records", "2").out.splitlines() == [
        "        1  updated",
        '        2  ignored      unknown_status: There is no result code "99" in domain DEMO.',
        '        3  rejected     format: Date Result "bad" is not a date of the form DD-MM-YYYY between 1900 and 2100.',
        "        4  updated",
    ]
    assert worked("records", "2", "--outcome", "ignored", "--outcome", "rejected").out.count("\n") == 2
    assert worked("records", "2", "--record", "4").out == "        4  updated\n"
    nothing = worked("records", "3")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "There are no such records.\n")


def test_records_as_json_are_one_object_a_line(worked: Call) -> None:
    lines = worked("records", "2", "--json").lines
    assert [(line["record_no"], line["outcome"]) for line in lines] == [
        (1, "updated"), (2, "ignored"), (3, "rejected"), (4, "updated"),
    ]  # fmt: skip
    assert lines[1]["raw"] == ["F2", "02-02-2026", "99", "Weiß", "=1+1"]
    assert worked("records", "3", "--json").raw == b""


def test_records_as_csv_can_be_opened_in_a_spreadsheet(worked: Call) -> None:
    table = list(csv.DictReader(io.StringIO(worked("records", "2", "--csv").out, newline="")))
    assert [row["outcome"] for row in table] == ["updated", "ignored", "rejected", "updated"]
    assert table[2]["rules"] == "format"


def test_rejects_are_the_cells_of_their_file_and_a_reason(worked: Call) -> None:
    told = worked("rejects", "1")
    assert told.out.splitlines() == [
        '"Customer number","Email","Last name","rowledger_reasons"',
        '"K2","nobody","[red]Brontë[/red]","rowledger: Email ""nobody"" is not an email address."',
    ]
    assert told.err == "1 rejected record of import batch 1.\n"


def test_rejects_come_in_the_encoding_of_their_template(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "partner.csv"
    path.write_bytes(
        "Form ID;Date Result;Result code;Agent;Remark\nF1;bad;20;Weiß;50 €\nF2;02-02-2026;20;;\n".encode(
            "cp1252"
        )
    )
    call(
        "submit",
        path,
        "--kind",
        "contract_status",
        "--domain",
        "DEMO",
        "--template",
        "result_codes_with_header",
    )
    call("work", "1")
    assert '"Weiß";"50 €"' in call("rejects", "1").raw.decode("cp1252")


def test_scripts_get_json(call: Call, write: Write) -> None:
    assert call("submit", write(), *CONTACTS, "--json").lines == [{"seqno": 1, "file_name": "contacts.csv"}]
    (batch,) = call("work", "1", "--json").lines
    assert (batch["status"], batch["processed"], batch["counts"]) == (
        "executed",
        True,
        {"created": 1, "rejected": 1},
    )
    assert not {"file_path", "epoch", "domain_id"} & set(batch)
    shown = call("show", "1", "--json").json
    assert [reason["rule"] for reason in shown["reasons"]] == ["format"]
    assert [event["event"] for event in shown["events"]] == ["uploaded", "executed"]
    assert {template["name"] for template in call("templates", "--json").json["templates"]} >= {"contacts"}
    assert all(result["violations"] == 0 for result in call("check", "--json").json)


def test_names_and_values_of_users_are_shown_as_text(call: Call, write: Write) -> None:
    """Markup and control characters in a file name or a cell do nothing to the terminal."""
    call("submit", write(f"{GOOD}K\u200b3,,Čapek\n", "[bold]x \x1b[2J.csv"), *CONTACTS)
    call("work", "1")
    for told in (call("list"), call("show", "1"), call("records", "1")):
        assert "\x1b" not in told.out
    assert "[bold]x" in call("show", "1").out
    assert 'Customer number "K\\u200b3" is not a code' in call("records", "1").out


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal_and_break_no_name(
    width: int, worked: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for told in (worked("list"), worked("templates"), worked("check")):
        assert max(len(line) for line in told.out.splitlines()) <= width
    assert "result_codes_with_header   contract_status" in worked("templates").out
    assert "one_history_entry_per_change" in worked("check").out


# Files ---------------------------------------------------------------------------------------------------------


def test_the_same_file_again_is_refused_unless_said_so(call: Call, write: Write) -> None:
    path = write()
    call("submit", path, *CONTACTS)
    told = call("submit", path, *CONTACTS)
    assert (told.code, told.out) == (5, "")
    assert "was uploaded before as import batch 1" in told.err
    assert "--again" in told.err
    assert call("submit", path, *CONTACTS, "--again").out == "2\n"


def test_a_file_that_failed_may_come_again(worked: Call, write: Write) -> None:
    assert worked("submit", write(GOOD.replace(",", ";"), "agency.csv"), *CONTACTS).code == 0


def test_a_directory_is_submitted_file_by_file(call: Call, write: Write, tmp_path: Path) -> None:
    write(GOOD, "b.csv")
    write(GOOD + "K3,,Čapek\n", "a.csv")
    write(GOOD, ".hidden.csv")
    (tmp_path / "in" / "deeper").mkdir()
    told = call("submit", tmp_path / "in", *CONTACTS)
    assert (told.code, told.out) == (0, "1\n2\n")
    assert [batch["file_name"] for batch in call("list", "--json").json] == ["b.csv", "a.csv"]


def test_links_and_devices_are_refused_and_the_other_files_go_on(
    call: Call, write: Write, tmp_path: Path
) -> None:
    write()
    (tmp_path / "in" / "a_link.csv").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "in" / "a_pipe.csv")
    told = call("submit", tmp_path / "in", *CONTACTS)
    assert (told.code, told.out) == (2, "1\n")
    assert told.err.splitlines() == [
        f"{tmp_path}/in/a_link.csv cannot be read (it is a link).",
        f"{tmp_path}/in/a_pipe.csv is not a regular file.",
    ]


def test_an_empty_directory_says_so(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert call("submit", tmp_path / "in", *CONTACTS).err == f"There are no files in {tmp_path}/in.\n"


def test_a_wrong_file_fails_its_batch_and_the_others_go_on(call: Call, write: Write) -> None:
    call("submit", write("PK\x03\x04", "a.csv"), *CONTACTS)
    call("submit", write(GOOD, "b.csv"), *CONTACTS)
    told = call("work", "--all-waiting")
    assert told.code == 3
    assert "The file is a zip archive or an Excel workbook, not text." in told.out
    assert "1 created, 1 rejected" in told.out
    nothing = call("work", "--all-waiting")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "No import batch is waiting.\n")


# What is wrong is said in a sentence ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "99"], "There is no import batch 99."),
        (["records", "99"], "There is no import batch 99."),
        (["rejects", "99"], "There is no import batch 99."),
        (["work", "99"], "There is no import batch 99."),
        (["work"], "Name one import batch seqno, or say --all-waiting."),
        (["work", "1", "--all-waiting"], "Name one import batch seqno, or say --all-waiting."),
        (["submit", "FILE", *CONTACTS[:3], "NONE", *CONTACTS[4:]], 'There is no domain "NONE". Domains are: DEMO, OTHER.'),
        (["submit", "FILE", *CONTACTS[:5], "none"], 'There is no template "none". Templates are: contacts, '),
        (["submit", "FILE", *CONTACTS[:5], "result_codes"], 'Template "result_codes" is for contract_status, not for contact.'),
        (["submit", "FILE", "--kind", "none", *CONTACTS[2:]], 'There is no import kind "none". Kinds are: contact, contract, contract_status.'),
        (["submit", "FILE", *CONTACTS, "--origin", "OLD"], 'The origin "OLD" is not active and cannot be chosen.'),
        (["submit", "FILE", *CONTACTS, "--origin", "X"], 'The origin "X" does not exist in this domain and cannot be chosen.'),
        (["submit", "FILE", *CONTACTS, "--subscription", "GONE"], 'The subscription list "GONE" is disabled and cannot be chosen.'),
        (["list", "--kind", "none"], 'There is no import kind "none".'),
        (["suite", "none"], 'There is no template "none".'),
        (["export-template", "none"], 'There is no template "none".'),
        (["reference", "status", "create", "4 0", "--domain", "DEMO", "--phase", "NEW", "--description", "x"], "code must be 1 to 64 printable ASCII characters without blanks, because files refer to it, not '4 0'."),
        (["reference", "status", "retire", "10", "--domain", "DEMO"], "retired must be false: this is the initial status; make another status initial first."),
        (["reference", "origin", "retire", "X", "--domain", "DEMO"], 'There is no origin "X" in domain DEMO. There are: FAIR, OLD, WEB.'),
        (["reference", "phase", "change", "NEW", "--domain", "DEMO"], "Say what to change; --help lists the options."),
        (["reference", "list", "--domain", "NONE"], 'There is no domain "NONE". Domains are: DEMO, OTHER.'),
        (["load-reference", "none.yml"], "none.yml: cannot be read (No such file or directory)."),
    ],
)  # fmt: skip
def test_a_call_that_cannot_work_says_why(
    arguments: list[str], sentence: str, call: Call, write: Write
) -> None:
    told = call(*(write() if argument == "FILE" else argument for argument in arguments))
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(sentence)
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["submit", "none.csv", *CONTACTS], ["list", "--status", "none"], ["show", "x"], ["none"]]
)
def test_a_call_that_cannot_be_read_shows_its_usage(arguments: list[str], call: Call) -> None:
    told = call(*arguments)
    assert (told.code, told.out) == (2, "")
    assert "Usage: rowledger" in told.err


def test_a_database_that_cannot_be_reached_says_so(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWLEDGER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    told = call("list")
    assert (told.code, told.out) == (75, "")
    assert told.err == "The database cannot be reached, takes no more connections, or closed this one.\n"


def test_a_database_without_tables_says_what_to_run(
    call: Call, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_autocommit = psycopg2.connect(server.get_uri("postgres"))
    with_autocommit.autocommit = True
    try:
        with_autocommit.cursor().execute("CREATE DATABASE bare TEMPLATE template0")
        monkeypatch.setenv("ROWLEDGER_DATABASE_URL", server.get_uri("bare"))
        told = call("list")
        assert told.code == 2
        assert "run: rowledger migrate" in told.err
        assert call("migrate").out.startswith("Applied: 0001_ledger.sql")
        assert call("migrate").out == "The database is up to date.\n"
        assert call("list").code == 0
    finally:
        with_autocommit.cursor().execute("DROP DATABASE bare WITH (FORCE)")
        with_autocommit.close()


def test_a_setting_that_makes_no_sense_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWLEDGER_LOAD_CHUNK", "0")
    assert call("list").err == "ROWLEDGER_LOAD_CHUNK must be a whole number above 0, not '0'.\n"


def test_a_wrong_template_is_reported_beside_the_right_ones(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.yml").write_bytes((ROOT / "include/templates/contacts.yml").read_bytes())
    (tmp_path / "wrong.yml").write_text(
        "kind: contact\ntitle: Wrong\ncolumns:\n  - {field: shoe_size, header: Shoe}\n"
    )
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(tmp_path))
    told = call("templates")
    assert told.code == 2
    assert "good" in told.out
    assert f"{tmp_path}/wrong.yml, line 4, columns.1.field: 'shoe_size' is not a field of contact" in told.err


def test_check_names_what_is_violated(worked: Call, connection: Connection) -> None:
    assert worked("check").out.splitlines()[-1].startswith("All ")
    with connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM import_record WHERE seqno = 1 AND record_no = 2")
    told = worked("check")
    assert told.code == 1
    assert "batch 1" in told.out
    assert "checks are violated" in told.out
    violated = [result["check"] for result in worked("check", "--json").json if result["violations"]]
    assert "conservation" in violated


# Templates and reference data ----------------------------------------------------------------------------------


def test_a_template_is_exported_as_a_file_to_fill_in(call: Call) -> None:
    told = call("export-template", "contacts")
    assert told.out.startswith("Customer number,Email,First name,Last name,")
    assert told.raw.endswith(b"\r\n")
    told = call("export-template", "result_codes")
    assert (told.out, told.err) == (
        "",
        "The file has no header. Its fields are: Form ID, Date Result, Result code, Agent, Remark.\n",
    )


def test_a_template_is_exported_as_a_spreadsheet_with_the_codes_of_a_domain(
    call: Call, tmp_path: Path
) -> None:
    from openpyxl import load_workbook

    file = tmp_path / "codes.xlsx"
    told = call("export-template", "result_codes", "--xlsx", str(file), "--domain", "DEMO")
    assert (told.code, told.out) == (0, "")
    assert [cell.value for cell in load_workbook(file)["Codes"]["A"]] == [
        "Result code",
        "10",
        "20",
        "30",
        "90",
    ]
    assert call("export-template", "result_codes", "--xlsx", str(file)).err.startswith("Say with --domain")
    assert call("export-template", "result_codes", "--xlsx", str(file), "--domain", "NONE").code == 2
    nowhere = call(
        "export-template", "result_codes", "--xlsx", str(tmp_path / "no" / "x.xlsx"), "--domain", "DEMO"
    )
    assert (
        nowhere.code,
        "cannot be written (No such file or directory)" in nowhere.err.replace("\n", " "),
    ) == (2, True)


def test_the_derived_suite_is_printed_with_its_hash(call: Call) -> None:
    suite = call("suite", "contacts").json
    assert suite["name"] == "contacts"
    assert len(suite["hash"]) == 64
    assert len(suite["expectations"]) > 10


def test_a_header_that_the_encoding_cannot_write_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(tmp_path))
    columns = "columns:\n  - {field: email, header: E-mail, type: email}\n  - {header: Łódź}\n"
    (tmp_path / "west.yml").write_text(
        f"kind: contact\ntitle: x\nfile: {{encoding: windows-1252}}\n{columns}"
    )
    told = call("export-template", "west")
    assert (told.code, told.out) == (2, "")
    assert told.err == "Template \"west\" has the letter 'Ł' in a header, which windows-1252 cannot write.\n"


def test_a_template_is_proposed_for_a_file_and_can_be_used_at_once(
    call: Call, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("E-mail;Vorname;Punkte;=1+1\nada@example.com;Ada;1,5;x\ncharles@example.com;Charles;2;y\n")
    told = call("infer-template", file, "--kind", "contact")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(
        "# yaml-language-server: $schema=template.schema.json\n# Proposed for files like "
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "leads.yml").write_bytes(told.raw)
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(tmp_path / "own"))
    assert [t["name"] for t in call("templates", "--json").json["templates"]][:1] == ["leads"]
    assert call("export-template", "leads").out == "E-mail;Vorname;Punkte;=1+1\r\n"
    call("submit", file, "--kind", "contact", "--domain", "DEMO", "--template", "leads")
    assert call("work", "1").code == 0
    assert call("show", "1", "--json").json["counts"] == {"created": 2}


def test_a_file_for_which_no_template_can_be_proposed_is_answered_in_sentences(
    call: Call, write: Write
) -> None:
    told = call("infer-template", write('a,b\n"x,y\n'), "--kind", "contact")
    assert (told.code, told.out) == (3, "")
    assert told.err.startswith('A quote (") is opened and never closed')
    told = call("infer-template", write("Form ID\nF1\n"), "--kind", "contract_status")
    assert told.code == 1
    assert told.err == "The proposal is no template yet; its comments say what a person must decide.\n"
    assert "# To decide: which column fills date_result?" in told.out
    told = call("infer-template", write("x\n"), "--kind", "contacts")
    assert told.err.startswith('There is no import kind "contacts". Kinds are: contact, contract')
    told = call("infer-template", write("x\n"), "--kind", "contact", "--region", "XX")
    assert (told.code, told.err[:35]) == (2, "'XX' is not a region with phone num")


def test_the_schema_of_templates_is_printed_and_the_page_of_keys_made_anew(
    call: Call, tmp_path: Path
) -> None:
    shipped = ROOT / "include" / "templates" / "template.schema.json"
    assert call("template-schema").raw == shipped.read_bytes()
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- file -->\nold\n<!-- end -->\nafter\n")
    assert call("template-schema", "--page", page).code == 0
    assert page.read_text().startswith("before\n<!-- file -->\n\n| key | values | default |")
    assert "old" not in page.read_text()


def test_reference_data_is_loaded_and_counted(call: Call, tmp_path: Path) -> None:
    (tmp_path / "more.yml").write_text("domains:\n  - {code: NEW, name: New}\nlists:\n  sizes: [S, M]\n")
    assert call("load-reference", tmp_path / "more.yml").out == "Created 1 domain, 2 list values.\n"
    again = call("load-reference", tmp_path / "more.yml", "--json").json
    assert again["list values"] == {"created": 0, "changed": 0, "unchanged": 2}


def test_reference_data_is_kept_by_commands(call: Call) -> None:
    def done(*arguments: str) -> str:
        told = call("reference", *arguments)
        assert (told.code, told.err) == (0, "")
        return told.out.rstrip("\n")

    demo = ("--domain", "NORTH")
    assert done("domain", "create", "NORTH", "--name", "[b]North[/b]") == 'Domain "NORTH" is created.'
    assert (
        done("domain", "change", "NORTH", "--name", "North") == 'Domain "NORTH": name: [b]North[/b] → North.'
    )
    done("phase", "create", "IN", *demo, "--description", "Intake")
    assert (
        done("phase", "change", "IN", *demo, "--description", "Intake")
        == 'Phase "IN" of domain NORTH: unchanged.'
    )
    given = ("--phase", "IN", "--description", "Signed")
    assert (
        done("status", "create", "10", *demo, *given, "--initial")
        == 'Status "10" of domain NORTH is created.'
    )
    done("status", "create", "20", *demo, *given, "--churn", "--definitive", "--after-days", "30")
    assert done("status", "change", "20", *demo, "--not-definitive", "--after-days", "0") == (
        'Status "20" of domain NORTH: definitive: ☑ → ☐; automatic_after_days: 30 → –.'
    )
    assert done("status", "initial", "20", *demo) == 'Status "20" of domain NORTH is now the initial status.'
    assert (
        done("status", "initial", "20", *demo) == 'Status "20" of domain NORTH is already the initial status.'
    )
    assert done("status", "retire", "10", *demo) == (
        'Status "10" of domain NORTH is now retired: it stays for history and cannot be chosen.'
    )
    assert done("status", "restore", "10", *demo) == 'Status "10" of domain NORTH is now in use.'
    done("origin", "create", "FAIR", *demo, "--name", "Fair")
    done("origin", "change", "FAIR", *demo, "--name", "Trade fair")
    assert done("origin", "retire", "FAIR", *demo).endswith("cannot be chosen.")
    done("subscription", "create", "NEWS", *demo, "--name", "News", "--type", "email", "--sequence", "3")
    done("subscription", "change", "NEWS", *demo, "--type", "mail", "--sequence", "4")
    assert done("value", "add", "sizes", "S", "M", "S") == 'Added 2 to the list "sizes".'
    assert done("value", "add", "sizes", "M", "L") == 'Added 1 to the list "sizes", 1 there already.'
    assert done("value", "remove", "sizes", "S") == 'Removed 1 from the list "sizes".'
    (north,) = call("reference", "list", *demo, "--json").json["domains"]
    assert north == {
        "code": "NORTH", "name": "North", "retired": False,
        "phases": [{"code": "IN", "description": "Intake", "retired": False}],
        "statuses": [
            {"code": "10", "phase": "IN", "description": "Signed", "initial": False, "definitive": False,
             "churn": False, "automatic_after_days": None, "retired": False},
            {"code": "20", "phase": "IN", "description": "Signed", "initial": True, "definitive": False,
             "churn": True, "automatic_after_days": None, "retired": False},
        ],
        "origins": [{"code": "FAIR", "name": "Trade fair", "active": False}],
        "subscriptions": [{"list_id": "NEWS", "name": "News", "type": "mail", "display_sequence": 4, "disabled": False}],
    }  # fmt: skip
    assert "Trade fair" in done("list", *demo)
    assert "sizes        2        L, M" in done("list")
    done("domain", "retire", "NORTH")
    assert "North  (retired)" in done("list", *demo)


def test_who_changed_what_is_shown_a_page_at_a_time(call: Call) -> None:
    call("reference", "status", "change", "20", "--domain", "DEMO", "--description", "[red]Phoned")
    told = call("reference", "changes", "--limit", "1")
    number = call("reference", "changes", "--limit", "1", "--json").json[0]["change_id"]
    assert "status 20" in told.out
    assert "description: Called → [red]Phoned" in told.out
    assert told.out.endswith(f"Older ones: --before {number}\n")
    older = call("reference", "changes", "--before", str(number), "--json").json
    assert older[0]["change_id"] < number
    assert [change["code"] for change in call("reference", "changes", "--code", "WEB", "--json").json] == [
        "WEB"
    ]
    assert call("reference", "changes", "--sort", "none").out == "No change is recorded.\n"


def test_a_person_is_erased_after_a_look_at_what_that_would_be(call: Call, write: Write) -> None:
    file = write("Customer number,Email,Last name\nK1,ada@example.com,One\nK2,eva@example.com,Two\n")
    call("submit", file, *CONTACTS)
    call("work", "--all-waiting")
    assert call("erasures").out == "Nobody was erased.\n"
    look = call("erase-contact", "K1", "--domain", "DEMO").out
    assert "Nothing was changed. To erase: --yes" in look
    assert call("contact", "K1", "--domain", "DEMO").code == 0
    given = call("erase-contact", "K1", "--domain", "DEMO", "--yes", "--json").json
    assert given["erased"] is True
    assert {one["place"]: one["items"] for one in given["counts"]} == {
        "contacts": 1, "records of the ledger": 1, "uploaded files": 1,
    }  # fmt: skip
    assert call("contact", "K1", "--domain", "DEMO").code == 2
    assert call("contact", "K2", "--domain", "DEMO").code == 0
    for key, about in (("K1", "It is about that key."), ("K2", "It is not about that key.")):
        told = call("erasures", given["erasure_id"], "--key", key).out
        assert about in told
        assert "uploaded files" in told
    assert call("erase-contact", "K1", "--domain", "DEMO", "--yes").code == 2
    assert call("check").code == 0


def test_housekeeping_tells_what_it_would_remove_and_removes_it(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = tmp_path / "home" / "uploads" / "ab" / "ab".ljust(64, "0")
    lost.parent.mkdir(parents=True)
    lost.write_text("lost")
    os.utime(lost, (0, 0))
    told = call("housekeeping", "--dry-run").out
    assert "vanished uploads" in told
    assert told.endswith("Nothing was removed.\n")
    assert lost.exists()
    assert call("housekeeping", "--json").json == [
        {"domain": None, "what": "vanished uploads", "items": 1, "bytes": 4}
    ]
    assert not lost.exists()
    assert call("housekeeping").out == "There is nothing to remove.\n"
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(tmp_path / "templates"))
    (tmp_path / "retention.yml").write_text("others: {files: never}")
    wrong = call("housekeeping")
    assert wrong.code == 2
    assert "must be a number of days from 1 to 36,500, or forever, not 'never'." in wrong.err


def test_every_command_has_a_help_that_tells_what_it_does(call: Call) -> None:
    told = call("--help")
    assert told.code == 0
    for command in ("submit", "work", "list", "show", "records", "rejects", "templates", "export-template", "suite", "infer-template", "template-schema",
                    "check", "migrate", "load-reference", "reference", "contract", "timers", "housekeeping",
                    "erase-contact", "erasures"):  # fmt: skip
        assert f"│ {command} " in told.out
        assert call(command, "--help").code == 0


# Contracts ------------------------------------------------------------------------------------------------------


def test_a_contract_is_shown_with_its_history_and_where_it_came_from(worked: Call, write: Write) -> None:
    text = "Form ID;Sign-up date;Customer number\nF1;15-12-2025;K1\n"
    worked(
        "submit",
        write(text, "register.csv"),
        "--kind",
        "contract",
        "--domain",
        "DEMO",
        "--template",
        "contracts",
    )
    assert worked("work", "4").code == 0
    told = worked("contract", "F1", "--domain", "DEMO").out
    assert told.startswith(
        'Contract F1 of DEMO\nStatus 20 "Called" since 2026-02-02\nPhase NEW "New contracts"\n'
    )
    assert "Signed up 2025-12-15, contact K1 (Ångström)\nCorrected " in told
    assert "by import batch 4, record 1 (register.csv, uploaded by " in told
    assert "contact was empty, sign up date was 2026-01-01" in told
    history = [line.split() for line in told.splitlines() if line.startswith(" 2026")]
    assert history[0][:4] == ["2026-01-01", "10", "Signed", "initial"]
    assert history[1][:9] == ["2026-02-02", "20", "Called", "10", "import", "batch", "2,", "record", "1"]
    assert "Import batch 2: codes.csv, uploaded by " in told
    found = worked("contract", "F1", "--domain", "DEMO", "--json").json
    assert (found["contact"], found["current"]["code"], found["touches"][0]["seqno"]) == ("K1", "20", 4)
    last = found["history"][-1]
    assert (last["previous_code"], last["seqno"], last["record_no"], last["file_name"]) == (
        "10",
        2,
        1,
        "codes.csv",
    )


def test_a_definitive_churn_status_is_marked_and_none_is_said(
    call: Call, write: Write, tmp_path: Path
) -> None:
    call("submit", write("F1;02-02-2026;90;;\n", "codes.csv"), *STATUSES)
    assert call("work", "1").code == 0
    assert (
        'Status 90 "Churned" since 2026-02-02, definitive, churn\n'
        in call("contract", "F1", "--domain", "DEMO").out
    )
    other = "domains:\n- {code: OTHER, name: O, contracts: [{form_id: G1, sign_up_date: 2026-01-01}]}\n"
    (tmp_path / "other.yml").write_text(other)
    call("load-reference", tmp_path / "other.yml")
    assert call("contract", "G1", "--domain", "OTHER").out == (
        "Contract G1 of OTHER\nIt has no status yet.\nSigned up 2026-01-01, no contact\n"
    )


def test_the_status_on_a_day_as_known_at_a_time_is_told_in_a_sentence(worked: Call) -> None:
    of = ("contract", "F1", "--domain", "DEMO")
    assert worked(*of, "--on", "2026-02-01").out.startswith(
        'On 2026-02-01, contract "F1" had the status 10 "Signed" in phase NEW "New contracts", dated 2026-01-01, '
        "as the initial status, recorded "
    )
    assert "dated 2026-02-02, by import batch 2, record 1, recorded " in worked(*of, "--on", "2026-02-02").out
    assert worked(*of, "--on", "2025-12-31").out == 'On 2025-12-31, contract "F1" had no status.\n'
    assert worked(*of, "--on", "2026-02-02", "--known-at", "2020-05-31").out == (
        'On 2026-02-02, as we knew it on 2020-05-31, contract "F1" had no status.\n'
    )
    assert worked(*of, "--known-at", "2020-05-31T12:00").out == (
        'As we knew it at 2020-05-31T12:00, contract "F1" had no status.\n'
    )
    told = worked(*of, "--on", "2026-02-02", "--known-at", "2099-01-01", "--json").json
    assert (told["status"]["code"], told["known_at"]) == ("20", "2099-01-01 23:59:59.999999+00:00")
    assert worked(*of, "--on", "2025-12-31", "--json").json["status"] is None


def test_what_is_not_kept_of_a_history_any_more_is_said(
    call: Call, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    year = datetime.now(UTC).year
    monkeypatch.setenv(
        "ROWLEDGER_TEMPLATES", str(shutil.copytree(ROOT / "include/templates", tmp_path / "templates"))
    )
    (tmp_path / "retention.yml").write_text("domains: {DEMO: {history: 800}}")
    register = write(f"Form ID;Sign-up date;Customer number\nF8;01-05-{year - 5};\n", "register.csv")
    call("submit", register, "--kind", "contract", "--domain", "DEMO", "--template", "contracts")
    assert call("work", "1").code == 0
    call("submit", write(f"F8;01-07-{year - 5};20;;\nF8;02-02-{year - 1};30;;\n", "codes.csv"), *STATUSES)
    assert call("work", "2").code == 0
    dry = call("housekeeping", "--dry-run", "--json").json
    assert [(one["what"], one["items"]) for one in dry] == [
        ("years of the status history", 1), ("entries of the status history", 1)]  # fmt: skip
    assert call("housekeeping", "--json").json[1] == dry[1]
    told = call("contract", "F8", "--domain", "DEMO").out
    assert f"Earlier entries are not kept any more. Up to {year - 5}-07-01 it had had: 10, 20." in told
    asked = call("contract", "F8", "--domain", "DEMO", "--on", f"{year - 5}-06-01")
    assert asked.code == 2
    assert (
        f'The history of contract "F8" is not kept before {year - 5}-07-01: which status it had then'
        in asked.err
    )
    assert '"20"' not in call("contract", "F8", "--domain", "DEMO", "--on", f"{year - 1}-03-01").out
    call("submit", write(f"F8;02-05-{year - 5};30;;\n", "late.csv"), *STATUSES)
    assert call("work", "3").code == 0
    assert "before_history: The history of contract" in call("records", "3").out
    assert call("check").code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["contract", "F9", "--domain", "DEMO"], 'There is no contract "F9" in domain DEMO.'),
        (["contract", "F1", "--domain", "NONE"], 'There is no domain "NONE". Domains are: DEMO, OTHER.'),
        (["contract", "F1", "--domain", "DEMO", "--on", "1.2.2026"], '"1.2.2026" is not a date; write it as in 2026-05-31.'),
        (["contract", "F1", "--domain", "DEMO", "--on", "2026-02-30"], '"2026-02-30" is not a date'),
        (["contract", "F1", "--domain", "DEMO", "--known-at", "now"], '"now" is not a time; write it as in 2026-05-31 or'),
        (["timers", "--next", "a week"], '"a week" is not a number of days; write it as in 7d.'),
        (["timers", "--next", "-1d"], '"-1d" is not a number of days'),
        (["timers", "--contracts"], "--contracts is for a forecast"),
        (["timers", "--domain", "NONE"], 'There is no domain "NONE". Domains are: DEMO, OTHER.'),
        (["timers", "--domain", "NONE", "--next", "7d"], 'There is no domain "NONE". Domains are: DEMO, OTHER.'),
    ],
)  # fmt: skip
def test_a_wrong_question_about_contracts_is_answered_with_a_sentence(
    arguments: list[str], sentence: str, call: Call
) -> None:
    told = call(*arguments)
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(sentence)


def test_a_contact_is_shown_with_its_links_and_every_record_about_it(call: Call, write: Write) -> None:
    header = "Customer number,Email,Last name,City,Roles,Loyalty card,Subscribe to,Unsubscribe from\n"
    call("submit", write(header + "K1,ada@example.com,[b]Ångström,Uppsala,press,NL-1,NEWS,OFFERS\n", "one.csv"),
         *CONTACTS, "--origin", "WEB")  # fmt: skip
    call("submit", write(header + "K1,,[b]Ångström,Lund,customer,-,,NEWS\n", "two.csv"),
         *CONTACTS, "--subscription", "NEWS")  # fmt: skip
    assert call("work", "--all-waiting").code == 0
    told = call("contact", "ADA@example.com", "--domain", "DEMO")
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert lines[0].startswith("Contact K1, [b]Ångström of DEMO, created 20")
    assert lines[1:7] == ["External ID K1", "Email ada@example.com", "Last name [b]Ångström", "City Lund",
                          "Roles customer, press", ""]  # fmt: skip
    by = f"uploaded by {getpass.getuser()}"
    assert f"WEB Web site the first, #1 one.csv record 1, {by}" in lines
    assert [line.partition(" since ")[0] for line in lines if " since " in line] == [
        "out NEWS Newsletter (email)", "out OFFERS Offers (email)",
    ]  # fmt: skip
    about = [line.partition(" ")[2].partition(" ")[2] for line in lines if line.startswith("20")]
    assert about == [
        f"out NEWS #2 two.csv record 1, {by}",
        f"out OFFERS #1 one.csv record 1, {by}",
        f"in NEWS #1 one.csv record 1, {by}",
        "updated City: Uppsala → Lund; Roles: press → customer, press; loyalty_card: NL-1 → nothing; out NEWS "
        f"#2 two.csv record 1, {by}",
        f"created origin WEB; in NEWS; out OFFERS #1 one.csv record 1, {by}",
    ]
    assert 'opted_out_kept: The record opts out of "Newsletter" too; the opt-out counts.' in lines


def test_a_contact_that_many_records_touched_is_shown_with_the_newest(call: Call, write: Write) -> None:
    for name in ("One", "Two", "Three"):
        call("submit", write(f"Customer number,Last name\nK1,{name}\n", f"{name}.csv"), *CONTACTS)
    call("work", "--all-waiting")
    told = call("contact", "K1", "--domain", "DEMO", "--limit", "2")
    assert "Last name: Two → Three" in told.out
    assert "One.csv" not in told.out
    assert told.out.endswith("  The newest 2 of 3 records; --limit shows more.\n")
    found = call("contact", "K1", "--domain", "DEMO", "--limit", "2", "--json").json
    assert found["totals"] == {"subscription_history": 0, "records": 3, "contracts": 0}
    assert [one["changes"] for one in found["records"]] == [
        {"last_name": {"before": "Two", "after": "Three"}}, {"last_name": {"before": "One", "after": "Two"}},
    ]  # fmt: skip


def test_a_contact_that_nobody_knows_is_answered_with_a_sentence(worked: Call) -> None:
    told = worked("contact", "K9", "--domain", "DEMO")
    assert (told.code, told.err) == (2, 'Nobody in domain DEMO has the external id or the email "K9".\n')


def test_timers_are_forecast_and_given(call: Call, tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    contracts = "\n".join(
        f"    - {{form_id: T{days}, sign_up_date: {today - timedelta(days)}}}" for days in (28, 31, 40)
    )
    (tmp_path / "timed.yml").write_text(f"""domains:
- code: TIMED
  name: Timed
  phases: [{{code: NEW, description: New}}]
  statuses:
    - {{code: "10", phase: NEW, description: Signed, initial: true}}
    - {{code: "35", phase: NEW, description: Confirmed, automatic_after_days: 30}}
  contracts:
{contracts}
""")
    call("load-reference", tmp_path / "timed.yml")
    due = today + timedelta(2)
    assert [line.split() for line in call("timers", "--next", "7d").out.splitlines()] == [
        [str(today), "TIMED", "2", "×", "35", "Confirmed"], [str(due), "TIMED", "1", "×", "35", "Confirmed"],
    ]  # fmt: skip
    assert call("timers", "--next", "7d", "--contracts").out.endswith(
        f"{due}  TIMED  T28: 10 → 35 Confirmed\n"
    )
    assert [one["contracts"] for one in call("timers", "--next", "7", "--json").lines] == [2, 1]
    given = call("timers", "--domain", "TIMED", "--json").lines
    assert given == [
        {"domain": "TIMED", "code": "35", "description": "Confirmed", "contracts": 2, "current": 2}
    ]
    assert call("timers").out == "Nothing is due.\n"
    assert call("timers", "--next", "1d").out == "Nothing falls due within 1 day.\n"
    assert [one["form_id"] for one in call("timers", "--next", "2d", "--contracts", "--json").lines] == [
        "T28"
    ]


# As a process of its own ---------------------------------------------------------------------------------------


def test_without_a_database_url_everything_runs_on_the_embedded_server(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROWLEDGER_")}
    environment |= {
        "ROWLEDGER_HOME": str(tmp_path / "home"),
        "ROWLEDGER_TEMPLATES": str(ROOT / "include/templates"),
    }
    path = tmp_path / "contacts.csv"
    path.write_text(GOOD, encoding="utf-8")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", "from rowledger.cli import main; main()", *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return done.stdout

    assert run("load-reference", str(ROOT / "tests/data/reference.yml")).startswith("Created 2 domains")
    assert run("submit", str(path), *CONTACTS) == "1\n"
    assert "2 records: 1 created, 1 rejected" in run("work", "1")
    assert json.loads(run("show", "1", "--json"))["processed"] is True


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(worked: Call, connection: Connection) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO import_record (seqno, domain_id, record_no, outcome)"
            " SELECT seqno, domain_id, n, 'created' FROM import_batch, generate_series(5, 60000) AS n WHERE seqno = 2"
        )
    command = [sys.executable, "-c", "from rowledger.cli import main; main()", "records", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout
        assert process.stderr
        assert b"updated" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) in (0, 1)  # typer ends with 1 here


# Roll back -------------------------------------------------------------------------------------------------------

FIRST = "Customer number,Email,Last name,Loyalty card,Campaigns\nK1,ada@example.com,Ash,,WEB\n"
WRONG = "Customer number,Email,Last name,Loyalty card,Campaigns,Subscribe to\nK1,eve@example.com,[b]Ashe[/b],7,FAIR,NEWS\nK2,,Birch,,,\nK3,,Cedar,,,\n"


@pytest.fixture
def wrong(call: Call, write: Write) -> str:
    """The seqno of a batch that changed K1 and created K2 and K3, of which K2 was confirmed since."""
    for content in (FIRST, WRONG, "Customer number,Last name\nK2,Birch\n"):
        call("submit", write(content, "x.csv"), *CONTACTS)
    call("work", "--all-waiting")
    return "2"


def test_a_dry_run_of_a_roll_back_shows_both_lists_and_changes_nothing(call: Call, wrong: str) -> None:
    told = call("roll-back", wrong, "--dry-run")
    assert told.code == 0
    assert told.out.splitlines() == [
        "A roll back would restore 2 records of contacts and spare 1.",
        "",
        "Restored",
        "        1  K1: Email: eve@example.com → ada@example.com; Last name: [b]Ashe[/b] → Ash; loyalty_card: 7 → nothing; "
        "origin FAIR removed; in NEWS withdrawn",
        "        3  K3: removed",
        "",
        "Spared",
        "        2  K2: Import batch 3, record 1, has said the same since.",
        "",
        "Nothing was changed.",
    ]
    assert "The first 1 of 2; --limit shows more" in call("roll-back", wrong, "--dry-run", "--limit", 1).out
    every = call("roll-back", wrong, "--dry-run", "--records").out.splitlines()
    assert [line.split()[:2] for line in every] == [["restored", "1"], ["spared", "2"], ["restored", "3"]]
    plan = call("roll-back", wrong, "--dry-run", "--json").json
    assert (plan["restored"], plan["spared"], plan["withdrawn"]) == (2, 1, 0)
    assert plan["restored_records"][0]["restores"]["email"] == "ada@example.com"
    assert [one["record_no"] for one in plan["spared_records"]] == [2]
    lines = call("roll-back", wrong, "--dry-run", "--records", "--json").lines
    assert [(one["record_no"], one["result"]) for one in lines] == [(1, "restored"), (2, "spared"), (3, "restored")]  # fmt: skip
    assert call("show", wrong, "--json").json["roll_back"] is None
    assert "Ashe" in call("contact", "K1", "--domain", "DEMO").out


def test_a_roll_back_tells_what_it_did_and_so_do_all_that_tell_of_the_batch(call: Call, wrong: str) -> None:
    told = call("roll-back", wrong, "--why", "the [i]wrong[/i] file")
    user = getpass.getuser()
    assert told.code == 0
    assert re.fullmatch(
        rf"Rolled back ....-..-.. ..:.. by {user}: the \[i\]wrong\[/i\] file\n"
        rf"2 records restored, 1 spared \(see: rowledger records 2 --rolled-back spared\)\.\n",
        told.out,
    )
    shown = call("show", wrong).out
    assert told.out in shown
    assert f"roll back asked by {user}: the [i]wrong[/i] file" in shown
    assert f"rolled back by {user}: 2 records restored, 1 spared" in shown
    assert "executed, rolled back" in call("list").out
    assert call("list", "--json").json[1]["rolled_back_at"]
    assert call("records", wrong).out.splitlines()[1::2] == [
        "           restored     by the roll back",
        "           spared       Import batch 3, record 1, has said the same since.",
        "           restored     by the roll back",
    ]
    (spared,) = call("records", wrong, "--rolled-back", "spared", "--json").lines
    assert (spared["record_no"], spared["rolled_back"]["later_seqno"]) == (2, 3)
    table = list(csv.reader(io.StringIO(call("records", wrong, "--csv").out)))
    assert [row[-1] for row in table] == ["rolled back", "restored", "spared", "restored"]
    contact = call("contact", "K1", "--domain", "DEMO").out
    assert re.search(r"in  NEWS withdrawn ....-..-.. ..:..", contact)
    assert re.search(
        r"Last name: Ash → \[b\]Ashe\[/b\].*origin FAIR; in NEWS .*\n    rolled back ....-..-..", contact
    )
    assert call("contact", "K3", "--domain", "DEMO").code == 2
    assert call("check").code == 0


def test_a_batch_is_cancelled_and_rolled_back_at_once(
    call: Call, write: Write, connection: Connection, settings: Settings
) -> None:
    call("submit", write(), *CONTACTS)
    worker = pipeline.Worker(connection, settings, "tester")
    pipeline.validate(worker, 1)
    pipeline.load(worker, 1)
    assert "Say why it is rolled back" in call("cancel", "1", "--roll-back").err
    assert call("show", "1", "--json").json["status"] == "in_progress"  # first the reason, then the deed
    done = call("cancel", "1", "--roll-back", "--why", "wrong file", "--json").json
    assert (done["restored"], done["spared"], done["why"]) == (1, 0, "wrong file")
    assert call("show", "1", "--json").json["status"] == "cancelled"
    assert call("contact", "K1", "--domain", "DEMO").code == 2
    assert call("cancel", "1", "--roll-back", "--why", "wrong file", "--json").json == done
    assert call("check").code == 0


def test_a_roll_back_that_was_asked_for_before_goes_on_or_says_that_it_is_done(
    call: Call, wrong: str, connection: Connection
) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO import_batch_roll_back (seqno, asked_by, why) VALUES (2, 'Ada', 'the file')"
        )
    assert "Roll back asked for" in (shown := call("show", wrong).out)
    assert "by Ada: the file; done up to record 0: 0 records restored, 0 spared." in shown
    assert "rolled back" not in call("list").out
    first = call("roll-back", wrong, "--why", "again")
    assert (
        "Import batch 2 was to be rolled back before, by Ada: the file. That goes on after record 0."
        in first.err
    )
    second = call("roll-back", wrong, "--why", "again")
    assert "by Ada: the file. That is done." in second.err
    assert (first.code, second.code, second.out) == (0, 0, first.out)
    again = call("roll-back", wrong, "--why", "again", "--json").json
    assert (again["asked_by"], again["restored"], again["spared"]) == ("Ada", 2, 1)
    assert "There is nothing to roll back" in call("roll-back", wrong, "--dry-run", "--records").err


def test_a_roll_back_says_what_it_needs(call: Call, wrong: str, write: Write) -> None:
    for arguments, told in (
        ((wrong,), "Say why, as in --why 'the wrong file'; or look first what it would do: --dry-run"),
        ((wrong, "--why", " "), "Say why it is rolled back, in one line of at most 255 characters."),
        ((wrong, "--why", "x", "--records"), "--records is for --dry-run; afterwards: rowledger records"),
        (("99", "--dry-run"), "There is no import batch 99."),
    ):
        found = call("roll-back", *arguments)
        assert (found.code, told in found.err) == (2, True), found.err
    call("submit", write("F1;02-02-2026;20;;\n", "y.csv"), *STATUSES)
    for arguments in (("4", "--dry-run"), ("4", "--why", "x")):
        found = call("roll-back", *arguments)
        assert found.code == 2
        assert "Import batch 4 is waiting; cancel it first, then it can be rolled back." in found.err
    assert call("roll-back", 3, "--dry-run").out.splitlines()[0] == (
        "There is nothing to roll back: no record of the batch has changed anything that is not undone yet."
    )


def test_a_contract_tells_what_was_withdrawn_from_its_history(call: Call, write: Write) -> None:
    call("submit", write("F1;02-02-2026;20;;\n", "x.csv"), *STATUSES)
    contracts = ["--kind", "contract", "--domain", "DEMO", "--template", "contracts"]
    call("submit", write("Form ID;Sign-up date;Customer number\nF1;05-01-2026;\n", "y.csv"), *contracts)
    call("work", "--all-waiting")
    assert "status 20 of 2026-02-02 withdrawn" in call("roll-back", 1, "--dry-run").out
    assert "Sign-up date: 2026-01-05 → 2026-01-01" in call("roll-back", 2, "--dry-run").out
    for seqno in (1, 2):
        call("roll-back", seqno, "--why", "the wrong file")
    told = call("contract", "F1", "--domain", "DEMO").out
    assert 'Status 10 "Signed" since 2026-01-01' in told
    assert re.search(
        rf'Withdrawn ....-..-.. ..:..:..: 2026-02-02 20 "Called" of import batch 1, record 1, '
        rf"rolled back by {getpass.getuser()}: the wrong file",
        told,
    )
    assert re.search(r"Corrected .*sign up date was 2026-01-01; rolled back ....-..-.. ..:..:..", told)
    found = call("contract", "F1", "--domain", "DEMO", "--json").json
    assert [(one["code"], one["why"]) for one in found["withdrawn"]] == [("20", "the wrong file")]
