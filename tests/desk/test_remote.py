"""The command line at a desk: what it prints and how it ends is what it prints and how it ends at the database."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rowledger import batches, cli, db, pipeline
from rowledger.db import Connection
from rowledger.errors import RowledgerError
from rowledger.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
from trouble import PASSWORD, served, with_login

ROOT = Path(__file__).parents[2]
GOOD = "Customer number,Email,Last name,Country\nK1,a@example.com,[red]Ånn[/red],DE\nK2,b@example.com,=1+1,XX\nK3,c@example.com,C,DE\n"
CONTACTS = ["--kind", "contact", "--domain", "DEMO", "--template", "contacts"]
STATUSES = ["--kind", "contract_status", "--domain", "DEMO", "--template", "result_codes"]
CODES = "F1;02-02-2026;20;;\nF2;02-02-2026;99;Weiß;=1+1\nF3;bad;20;;\nF3;01-02-2026;20;;\n"


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


Call = Callable[..., Told]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], settings: Settings
) -> Iterator[Call]:
    """Run the command line in this process, at the database."""
    for name, value in (
        ("DATABASE_URL", settings.database_url),
        ("HOME", settings.home),
        ("TEMPLATES", settings.templates),
    ):
        monkeypatch.setenv(f"ROWLEDGER_{name}", str(value))
    monkeypatch.setenv("COLUMNS", "120")
    handlers = list(logging.getLogger("rowledger").handlers)

    def call(*arguments: Any) -> Told:
        monkeypatch.setattr(sys, "argv", ["rowledger", *map(str, arguments)])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsysbinary.readouterr()
        code = end.value.code
        return Told(code if isinstance(code, int) else 0, told.out.decode(), told.err.decode())

    yield call
    logging.getLogger("rowledger").handlers[:] = handlers


@pytest.fixture
def remote(
    call: Call, app: Any, monkeypatch: pytest.MonkeyPatch, settings: Settings, runs: Any
) -> Iterator[Call]:
    """The same at a desk whose runs work off what waits; the desk's user has the name of the one who calls."""
    threads = []

    def work_off(kind: str) -> None:
        assert settings.database_url
        with contextlib.closing(db.connect(settings.database_url)) as connection:
            worker = pipeline.Worker(connection, settings, "runs")
            for seqno in batches.waiting(connection):
                if batches.get(connection, seqno).kind == kind:
                    with contextlib.suppress(RowledgerError):
                        pipeline.work(worker, seqno)

    def run_now(kind: str, by: str) -> str:
        runs.started.append((kind, by))
        threads.append(threading.Thread(target=work_off, args=(kind,)))
        threads[-1].start()
        return "manual__1"

    monkeypatch.setattr(runs, "run_now", run_now)
    monkeypatch.setenv("ROWLEDGER_USER", "user")
    monkeypatch.setenv("ROWLEDGER_PASSWORD", PASSWORD)
    with served(with_login(app)) as url:

        def remote(*arguments: Any) -> Told:
            monkeypatch.delenv("ROWLEDGER_DATABASE_URL")
            try:
                return call("--url", url, *arguments)
            finally:
                monkeypatch.setenv("ROWLEDGER_DATABASE_URL", str(settings.database_url))

        yield remote
        for thread in threads:
            thread.join(60)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str = GOOD, name: str = "contacts.csv") -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    return write


@pytest.fixture
def worked(call: Call, write: Callable[..., Path]) -> None:
    """Batch 1 has created and rejected contacts, batch 2 ignored and rejected statuses; 3 failed, 4 is rolled back, 5 waits."""
    call("submit", write(), *CONTACTS, "--origin", "WEB")
    call("submit", write(CODES, "codes.csv"), *STATUSES)
    call("submit", write(GOOD.replace(",", ";"), "agency.csv"), *CONTACTS)
    call("submit", write("F2;03-02-2026;30;;\nF1;03-02-2026;30;;\n", "more.csv"), *STATUSES)
    assert call("work", "--all-waiting").code == 3
    assert call("roll-back", 4, "--why", "wrong file").code == 0
    assert call("rerun", 1).out == "5\n"


@pytest.mark.usefixtures("worked")
def test_what_is_shown_is_the_same(call: Call, remote: Call) -> None:
    different = []
    for command in (
        ["list"], ["list", "--json"], ["list", "--limit", 2], ["list", "--before", 3], ["list", "--status", "waiting", "--json"],
        ["list", "--kind", "contract"], ["list", "--kind", "pigeon"],
        *(["show", seqno, *more] for seqno in (1, 2, 3, 4, 5, 77) for more in ([], ["--json"])),
        *(["records", seqno, *more] for seqno in (1, 2, 4, 77)
          for more in ([], ["--json"], ["--csv"], ["--outcome", "rejected"], ["--record", 2], ["--rolled-back", "restored"])),
        ["records", 5],
        ["rejects", 1], ["rejects", 2], ["rejects", 3], ["rejects", 77],
        ["pause", 1], ["resume", 1], ["cancel", 3], ["pause", 77], ["reprocess", 5, "--template", "old"], ["rerun", 5],
        ["roll-back", 5, "--why", "x"], ["roll-back", 1], ["give-up"], ["give-up", 1], ["give-up", 1, "--why", "x"],
        ["parked"], ["parked", "--json"], ["parked", "--domain", "NONE"], ["parked", "--kind", "pigeon"],
        ["give-up", 77, "--why", "x"], ["give-up", "--code", "77", "--domain", "DEMO", "--why", "x"],
    ):  # fmt: skip
        here, there = call(*command), remote(*command)
        if here != there:
            different.append((command, here, there))
    assert different == []


@pytest.mark.usefixtures("worked")
def test_what_is_asked_is_done_and_told_the_same(
    call: Call, remote: Call, connection: Connection, write: Any
) -> None:
    paused = remote("pause", 5, "--why", "wrong month?")
    assert (paused.code, paused.out) == (
        0, "Import batch #5 contacts_rejects.csv is paused at record 0. To go on: rowledger resume 5\n",
    )  # fmt: skip
    told = remote("work", 5)
    assert (told.code, told.err) == (4, "Import batch 5 is paused.\n")
    assert '"status": "waiting"' in remote("resume", 5, "--json").out
    assert remote("cancel", 5).out == call("cancel", 5).out
    assert [e["by"] for e in batches.events(connection, 5)][1:] == ["user"] * 3
    for here, there in ((call, remote), (remote, call)):
        first, second = (
            here("reprocess", 1, "--template", "current", "--json"),
            there("reprocess", 1, "--template", "old", "--json"),
        )
        assert re.sub(r"seqno\": \d+", "", first.out) == re.sub(r"seqno\": \d+", "", second.out)
    mended = write("Customer number,Last name,Country\nK2,Ben,DE\n", "mended.csv")
    assert remote("rerun", 1, mended).out == "10\n"
    assert remote("rerun", 3).err == call("rerun", 3).err
    asked = remote("roll-back", 1, "--why", "the wrong file")
    assert (asked.code, "Roll back asked for" in asked.out) == (0, True)
    assert "by user: the wrong file" in asked.out.replace("\n", " ")
    assert (
        remote("roll-back", 1).err
        == "Say why, as in --why 'the wrong file'; or look first what it would do: --dry-run\n"
    )


@pytest.fixture
def parking(call: Call, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches 1 and 2 wait for code 77 and contracts F8 and F9 each."""
    folder = shutil.copytree(settings.templates, tmp_path / "templates")
    template = folder / "result_codes.yml"
    text = template.read_text(encoding="utf-8").replace("unknown_contract: reject", "unknown_contract: park")
    text = text.replace("unknown_status: ignore", "unknown_status: park").replace(
        "  max_rejected_share: 0.5\n", ""
    )
    template.write_text(text, encoding="utf-8")
    monkeypatch.setenv("ROWLEDGER_TEMPLATES", str(folder))
    for number in (1, 2):
        path = tmp_path / f"codes_{number}.csv"
        path.write_text(
            f"F1;02-02-2026;77;;{number}\nF8;02-02-2026;20;;\nF9;02-02-2026;20;;\nF9;03-02-2026;20;;\n"
        )
        assert call("submit", path, *STATUSES).code == 0
    assert call("work", "--all-waiting").code == 0


@pytest.mark.usefixtures("parking")
def test_what_waits_and_giving_it_up_is_told_the_same(
    call: Call, remote: Call, connection: Connection
) -> None:
    for command in (
        ["parked"],
        ["parked", "--json"],
        ["parked", "--limit", 1],
        ["parked", "--kind", "contact"],
    ):
        here, there = call(*command), remote(*command)
        assert here == there, command
    first, second = call("give-up", 1, "--why", "x"), remote("give-up", 2, "--why", "x", "--contract", "F9")
    assert (first.out, second.out) == (
        "Import batch #1 codes_1.csv: 4 parked records are given up.\n",
        "Import batch #2 codes_2.csv: 2 parked records are given up.\n",
    )
    for command in (["show", 1], ["show", 2, "--json"], ["records", 2], ["rejects", 1], ["rejects", 2]):
        here, there = call(*command), remote(*command)
        assert here == there, command
    told = remote("give-up", "--code", "77", "--domain", "DEMO", "--why", "a typing error", "--json")
    assert (told.code, told.out) == (0, '{"seqno": 2, "given_up": 1}\n')
    last = batches.events(connection, 2)[-1]
    assert (last["by"], last["detail"]) == ("user", "1 parked record: a typing error")
    assert remote("give-up", 2) == call("give-up", 2)


def test_files_are_submitted_and_worked_off_with_the_same_exit_codes(
    call: Call, remote: Call, write: Any, tmp_path: Path, runs: Any
) -> None:
    good, bad = write(), write(GOOD.replace(",", ";"), "agency.csv")
    codes = write(CODES, "codes.csv")
    assert remote("submit", good, *CONTACTS, "--json") == Told(
        0, '{"seqno": 1, "file_name": "contacts.csv"}\n', ""
    )
    assert remote("submit", good, *CONTACTS) == call("submit", good, *CONTACTS)
    assert remote("submit", good, *CONTACTS).code == 5
    (tmp_path / "link.csv").symlink_to(good)
    told = remote("submit", tmp_path / "link.csv", bad, *CONTACTS)
    assert (told.code, told.out) == (2, "2\n")
    assert "it is a link" in told.err
    assert remote("submit", codes, *STATUSES).out == "3\n"
    assert remote("submit", codes, *CONTACTS).out == "4\n"
    for wrong in (
        ["--kind", "contact", "--domain", "NONE", "--template", "contacts"],
        [*STATUSES[:4], "--template", "contacts"],
    ):
        here, there = call("submit", good, *wrong), remote("submit", good, *wrong)
        assert (here.code, here.out, here.err) == (there.code, there.out, there.err)
    told = remote("work", "--all-waiting", "--json")
    assert (told.code, told.err) == (3, "")
    assert [line.split(",")[0] for line in told.out.splitlines()] == [f'{{"seqno": {n}' for n in (1, 2, 3, 4)]
    assert sorted(runs.started) == [("contact", "user"), ("contract_status", "user")]
    assert remote("work", "--all-waiting").err == "No import batch is waiting.\n"
    assert remote("work", 1) == call("work", 1)
    assert remote("work", 2).code == 2  # a desk does not open it again
    assert remote("submit", write("", "empty.csv"), *CONTACTS).code == 3


def test_what_needs_the_database_says_so(remote: Call, write: Any) -> None:
    for command in (
        ["check"], ["migrate"], ["replay"], ["contact", "K1", "--domain", "DEMO"], ["roll-back", 1, "--dry-run"],
        ["dry-run", write(), *CONTACTS], ["timers"],
    ):  # fmt: skip
        told = remote(*command)
        assert (told.code, told.out) == (2, ""), command
        assert told.err.startswith("This command works on the database itself"), command


def test_who_asks_stands_in_the_environment(remote: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remote("list").out == "There are no import batches; upload a file with: rowledger submit\n"
    monkeypatch.setenv("ROWLEDGER_TOKEN", "viewer")
    assert remote("list").code == 0
    assert "not upload or change them" in remote("pause", 1).err
    monkeypatch.setenv("ROWLEDGER_TOKEN", "expired")
    assert remote("list").code == 2
    monkeypatch.delenv("ROWLEDGER_TOKEN")
    monkeypatch.setenv("ROWLEDGER_PASSWORD", "wrong")
    assert remote("list") == Told(2, "", "Airflow does not know this user with this password.\n")
    monkeypatch.delenv("ROWLEDGER_PASSWORD")
    assert "ROWLEDGER_USER and ROWLEDGER_PASSWORD" in remote("list").err


def test_an_address_of_nothing_is_to_be_tried_again(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowledger.client.WAITS", ())
    monkeypatch.setenv("ROWLEDGER_TOKEN", "user")
    monkeypatch.setenv("ROWLEDGER_URL", "http://127.0.0.1:1")
    told = call("list")
    assert (told.code, told.err) == (75, "127.0.0.1:1 cannot be reached ([Errno 111] Connection refused).\n")
    assert call("--url", "localhost", "list").code == 2
    monkeypatch.delenv("ROWLEDGER_URL")
    assert call("list").code == 0
