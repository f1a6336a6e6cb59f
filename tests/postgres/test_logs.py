"""No value of a file reaches a log: what goes in has canaries in every cell, and every line that is said is listened to."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import (
    batches,
    control,
    dry_run,
    housekeeping,
    ledger,
    pipeline,
    reference,
    replay,
    roll_back,
    timers,
)
from rowledger import server as embedded
from rowledger.db import Connection, transaction
from rowledger.errors import FileError, RecordRefused, RowledgerError
from rowledger.reference import Reference
from rowledger.retention import Retention
from rowledger.settings import Settings
from rowledger.suites import suite_hash

Submit = Callable[..., int]
CANARY = re.compile("canary", re.IGNORECASE)
HEADER = "Customer number,Email,Last name,Birth date,Canary heading\n"
_numbers = itertools.count(1)


def good(n: int, key: str = "K") -> str:
    return f"{key}{n}-canary,canary{n}-{key}@example.com,Canary {n},,Canary note\n"


CONTACTS = HEADER + "".join(good(n) for n in range(12))
FILES = {
    "good": ("contacts", CONTACTS),
    "updates": ("contacts", CONTACTS.replace("Canary ", "Canaries ")),
    "faulty": ("contacts", CONTACTS + "canary,canary,canary,canary,canary\nX,x@canary.example,a,b,c,canary,canary\n"
               'Y,"y"canary,a,,\n,,canary,,\n'),
    "conflicting keys": ("contacts", CONTACTS + "K1-canary,canary2-K@example.com,Canary,,\n"),
    "too many faults": ("contacts", HEADER + "K1-canary,canary,canary,canary,canary\n" * 9),
    "not the template's": ("contacts", "canary,another canary\nmore canary,canary\n"),
    "a column twice": ("contacts", "Customer number,Canary,Canary\nK1-canary,canary,canary\n"),
    "an open quote": ("contacts", HEADER + 'K1,"canary\nK2-canary,canary\n'),
    "not its encoding": ("contacts", CONTACTS.encode() + b"K\xe4-canary,canary\xff@example.com,Canary,,\n"),
    "not text": ("contacts", b"\x00\x01canary" * 99),
    "refused by the database": ("contacts", CONTACTS + "K99-canary,canary99@example.com,refused canary,,\n"),
    "statuses": ("result_codes", "F1;02-02-2026;20;canary;canary\ncanary-9;02-02-2026;20;canary;\nF2;canary;20;;\n"
                 "F2;02-02-2026;canary;;\nF3;02-02-2026;30;canary;\n"),
    "contracts": ("contracts", "Form ID;Sign-up date;Customer number\ncanary-C1;02-03-2026;K1-canary\n"
                  "canary-C2;canary;canary\ncanary-C3;02-03-2026;nobody-canary\n"),
}  # fmt: skip


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    return pipeline.Worker(connection, settings, "tester")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Everything that was said so far: log lines of all loggers with their tracebacks, standard output and error."""
    caplog.set_level(logging.DEBUG)
    heard: list[str] = []

    def said() -> str:
        heard.append(caplog.text)
        heard.extend(capfd.readouterr())
        return "\n".join(heard)

    return said


@pytest.fixture
def errors() -> list[BaseException]:
    """Errors that Airflow would print with their tracebacks."""
    return []


def attempt(errors: list[BaseException], do: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return do(*arguments, **options)
    except FileError as error:
        errors.append(RuntimeError(error.in_log))  # as the task says it
    except RowledgerError as error:
        errors.append(error)
    return None


def leaks(text: str) -> list[str]:
    return [line for line in text.splitlines() if CANARY.search(line)]


@pytest.mark.parametrize("name", FILES)
def test_no_value_of_a_file_is_logged_whatever_is_wrong_with_it(
    name: str, worker: pipeline.Worker, connection: Connection, submit: Submit, said: Callable[[], str],
    errors: list[BaseException], everything: Callable[[], str], settings: Settings, tmp_path: Path,
) -> None:  # fmt: skip
    with transaction(connection) as cursor:
        cursor.execute(
            "ALTER TABLE contact ADD CONSTRAINT no_such_name CHECK (last_name NOT LIKE 'refused%')"
        )
    template, content = FILES[name]
    if name in ("updates", "conflicting keys"):
        pipeline.work(worker, submit(CONTACTS))
    seqno = submit(content, template)
    attempt(errors, pipeline.work, worker, seqno)
    batch = batches.get(connection, seqno)
    assert batch.status.terminal
    raw = content.encode() if isinstance(content, str) else content
    (path := tmp_path / "dry.csv").write_bytes(raw)
    chosen = pipeline.template_of(connection, batch)
    with (
        contextlib.suppress(RowledgerError),
        dry_run.dry_run(worker, path, chosen, suite_hash(chosen), "DEMO") as trial,
    ):
        list(trial.records())
    roll_back.ask(connection, seqno, by="anna", why="wrong file")
    attempt(errors, roll_back.work, worker, seqno)
    housekeeping.clean(worker, Retention())
    assert leaks(said()) == []
    assert leaks("".join("".join(traceback.format_exception(error)) for error in errors)) == []
    if batch.records_in_file:
        assert CANARY.search(everything())  # it was in there
    assert said().count("Import batch") > 0 or not batch.records_in_file


def test_parked_records_timers_and_what_is_settled_are_not_quoted(
    worker: pipeline.Worker, connection: Connection, submit: Submit, said: Callable[[], str],
    errors: list[BaseException], tmp_path: Path, everything: Callable[[], str],
) -> None:  # fmt: skip
    source = (worker.settings.templates / "result_codes.yml").read_text()
    folder = tmp_path / "templates"
    folder.mkdir()
    policies = "\npolicies:\n  unknown_contract: park\n  unknown_status: park\n"
    text = re.sub(r"\npolicies:\n(?:  .*\n)*", "\n", source) + policies
    (folder / "result_codes.yml").write_text(text)
    object.__setattr__(worker.settings, "templates", folder)
    seqno = submit(
        "canary-1;02-02-2026;20;canary;\nF1;03-02-2026;canary;canary;\nF2;bad canary;20;canary;\n",
        "result_codes",
    )
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    control.cancel(connection, seqno, by="anna")
    pipeline.complete_raw(worker, seqno)
    contracts = [{"form_id": "canary-1", "sign_up_date": "2026-01-01"}]
    reference.load(
        connection,
        Reference.model_validate({"domains": [{"code": "DEMO", "name": "Demo", "contracts": contracts}]}),
    )
    replay.replay(worker)
    timers.give(connection)
    assert CANARY.search(everything())
    assert leaks(said()) == []


@pytest.mark.parametrize("fault", ["a value in an error", "COPY refused"])
def test_an_error_of_ours_is_logged_with_its_place_and_without_its_message(
    fault: str, worker: pipeline.Worker, connection: Connection, submit: Submit, said: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seqno = submit(FILES["faulty"][1])
    if fault == "COPY refused":
        with transaction(connection) as cursor:
            cursor.execute(
                "ALTER TABLE import_record ADD CONSTRAINT none CHECK (raw::text NOT LIKE '%canary%')"
            )
        with pytest.raises(RecordRefused) as caught:
            pipeline.work(worker, seqno)
    else:
        value = "canary@example.com"

        def broken(*_: Any) -> None:
            raise ValueError(value) from KeyError(value)

        monkeypatch.setattr(ledger, "write_rejects", broken)
        with pytest.raises(ValueError, match="canary"):
            pipeline.work(worker, seqno)
        assert "ValueError" in said()
        assert "in broken" in said()
        assert batches.get(connection, seqno).error_rule == pipeline.INTERNAL
        assert leaks(said()) == []
        return
    assert leaks("".join(traceback.format_exception(caught.value)) + said()) == []


def test_the_embedded_server_logs_errors_without_rows_and_statements(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", templates=tmp_path)
    with embedded.running(settings) as handle:
        connection = psycopg2.connect(handle.get_uri("postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (name text PRIMARY KEY)")
            cursor.execute("INSERT INTO t VALUES ('canary')")
            for wrong in ("INSERT INTO t VALUES ('canary')", "SELECT 'canary'::date", "SELECT 1/0, 'canary'"):
                with pytest.raises(psycopg2.Error):
                    cursor.execute(wrong)
        connection.close()
    text = "".join(
        path.read_text(errors="replace")
        for path in (settings.home / "postgres").glob("*log*")
        if path.is_file()
    )
    assert "division by zero" in text
    assert [line for line in leaks(text) if "invalid input syntax" not in line] == []
