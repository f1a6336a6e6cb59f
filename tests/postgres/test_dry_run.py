"""A dry run says what an import does then, and writes nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rowledger import db, dry_run, ledger, loading, pipeline, reference, templates
from rowledger.db import Connection
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.suites import suite_hash

INCLUDE = Path(__file__).parents[2] / "include"
SAMPLES = INCLUDE / "samples"
Submit, Work = Callable[..., int], Callable[[int], Batch]
Trial = Callable[..., contextlib.AbstractContextManager[dry_run.Trial]]


@pytest.fixture
def trial(connection: Connection, settings: Settings, tmp_path: Path) -> Trial:
    """A dry run of bytes, text or a file for the domain DEMO."""

    def trial(
        content: str | Path, template: str = "contacts", domain: str = "DEMO", **options: Any
    ) -> contextlib.AbstractContextManager[dry_run.Trial]:
        path = content if isinstance(content, Path) else tmp_path / "trial.csv"
        if not isinstance(content, Path):
            path.write_text(content, encoding="utf-8")
        chosen = templates.find_template(settings.templates, template, loading.kinds())
        worker = pipeline.Worker(connection, settings, "tester")
        return dry_run.dry_run(worker, path, chosen, suite_hash(chosen), domain, **options)

    return trial


def everything(connection: Connection) -> dict[str, Any]:
    """Every row of every table, and what the next import batch will be called."""
    with db.transaction(connection) as cursor:
        tables = [
            row["name"]
            for row in db.rows(
                cursor,
                "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname LIKE 'rowledger%'",
            )
        ]
        found: dict[str, Any] = {
            table: db.row(
                cursor, f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) AS rows FROM {table} AS t"
            )
            for table in tables
        }
        found["next"] = db.row(cursor, "SELECT last_value, is_called FROM import_batch_seqno_seq")
        return found


def told(rows: Any) -> list[tuple[Any, ...]]:
    return [(row["record_no"], row["outcome"], row["reasons"], row["warnings"]) for row in rows]


def test_every_sample_becomes_what_its_dry_run_said_and_the_dry_run_wrote_nothing(
    connection: Connection,
    settings: Settings,
    trial: Trial,
    submit: Submit,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dry_run, "CHUNK", 97)
    reference.load(connection, reference.read(INCLUDE / "reference" / "demo.yml"))
    for entry in yaml.safe_load((SAMPLES / "manifest.yml").read_text(encoding="utf-8")):
        options = {key: entry[key] for key in ("domain", "origins", "subscriptions")}
        before = everything(connection)
        with trial(SAMPLES / entry["file"], entry["template"], **options) as tried:
            said, counts, failed = told(tried.records()), tried.batch.counts, tried.batch.error_message
            reasons = tried.reasons(50)
        assert everything(connection) == before
        assert list(settings.scratch.iterdir()) == []
        batch = work(submit(SAMPLES / entry["file"], entry["template"], **options))
        assert (batch.counts, batch.error_message) == (counts, failed), entry["file"]
        assert told(ledger.records(connection, batch.seqno)) == said
        assert (
            ledger.common_reasons(connection, batch.seqno, ["rejected", "ignored", "parked"], 50) == reasons
        )


def test_what_would_change_in_a_contact_before_and_after(trial: Trial, submit: Submit, work: Work) -> None:
    work(submit("Customer number,Email,Last name,City\nK1,ada@example.com,Ada,Ulm\nK2,,Same,\n"))
    file = "Customer number,Last name,City,Company\nK1,Lovelace,Jena,Engines\nK2,Same,,\nK3,New,,\n"
    with trial(file, origins=["WEB"], subscriptions=["NEWS"]) as tried:
        changed, linked, created = [(row["about"], row["before"], row["after"]) for row in tried.records()]
    assert changed == (
        "K1",
        {"last_name": "Ada", "city": "Ulm", "company": None},
        {
            "last_name": "Lovelace",
            "city": "Jena",
            "company": "Engines",
            "origins": ["WEB"],
            "subscriptions": ["NEWS"],
        },
    )
    assert linked == ("K2", {}, {"origins": ["WEB"], "subscriptions": ["NEWS"]})
    assert created[2]["last_name"] == "New"
    assert created[1] is None


def test_what_would_change_in_a_contract_before_and_after(trial: Trial, submit: Submit, work: Work) -> None:
    work(submit("F1;02-02-2026;20;;\n", "result_codes"))
    with trial("F1;03-02-2026;30;;\nF1;01-02-2026;20;;\nF2;01-02-2026;30;;\n", "result_codes") as tried:
        rows = list(tried.records())
    assert [(row["outcome"], row["about"], row["before"], row["after"]) for row in rows] == [
        ("updated", "F1", {"status": "20"}, {"status": "30", "date_result": "2026-02-03"}),
        ("historic", "F1", {"status": "10"}, {"status": "20", "date_result": "2026-02-01"}),
        ("updated", "F2", {"status": "10"}, {"status": "30", "date_result": "2026-02-01"}),
    ]


def test_one_record_and_some_outcomes_can_be_asked_for(trial: Trial) -> None:
    with trial("Customer number,Last name\nK1,A\nK2,\nK3,C\n") as tried:
        assert [row["outcome"] for row in tried.records(2)] == ["rejected"]
        assert [row["record_no"] for row in tried.records(outcomes=["created"])] == [1, 3]
        assert [row["record_no"] for row in tried.records(limit=1)] == [1]
        assert list(tried.records(4)) == []


def test_others_import_meanwhile_what_the_dry_run_is_about(
    database_url: str, settings: Settings, trial: Trial, submit: Submit, connection: Connection
) -> None:
    """Between the last chunk of the dry run and its end nobody waits for it: neither the upload nor the load."""
    content = "Customer number,Last name\nK1,A\nK2,B\n"
    with trial(content, origins=["WEB"]), contextlib.closing(db.connect(database_url)) as other:
        with db.transaction(other) as cursor:
            cursor.execute("SET SESSION lock_timeout = '500ms'")
        path = settings.home / "same.csv"
        path.write_text(content)
        template = templates.find_template(settings.templates, "contacts", loading.kinds())
        worker = pipeline.Worker(other, settings, "other")
        from rowledger import batches, uploads

        upload = uploads.keep_file(path, settings.uploads)
        seqno = batches.register(
            other, upload, template, suite_hash(template), "DEMO", by="other", through="command line"
        )
        assert pipeline.work(worker, seqno).counts["created"] == 2
    assert [check for check in ledger.check(connection) if check["violations"]] == []


def test_a_wrong_set_up_is_said_and_leaves_the_connection_as_it_was(
    trial: Trial, connection: Connection
) -> None:
    from rowledger.errors import UnknownCode

    with pytest.raises(UnknownCode, match='There is no domain "NOWHERE"'), trial("a,b\n", domain="NOWHERE"):
        pass
    assert not connection.trial
    with db.transaction(connection) as cursor:
        assert json.dumps(db.row(cursor, "SELECT 1 AS one")) == '{"one": 1}'
