"""A real Airflow works batches off: states, labels, logs, clears, kills."""

from __future__ import annotations

import contextlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from engine import LARGE, contacts

from rowledger import batches, db, ledger, loading, pipeline, reference, templates, uploads
from rowledger.db import rows, transaction
from rowledger.settings import Settings
from rowledger.suites import suite_hash

DATA = Path(__file__).parent.parent / "data"


def everything(engine: Any, seqno: int) -> list[list[dict[str, Any]]]:
    """All rows that an import may write, with their timestamps."""
    with transaction(engine.connection) as cursor:
        return [
            rows(cursor, f"SELECT * FROM {table} ORDER BY 1, 2")
            for table in (
                "contact",
                "import_record",
                "import_batch_event",
                "subscription_history",
                "import_batch",
            )
        ]


def became(connection: db.Connection, seqno: int) -> list[dict[str, Any]]:
    """The ledger of a batch beside the contacts it led to, without numbers and times that differ by nature."""
    with transaction(connection) as cursor:
        return rows(
            cursor,
            "SELECT record_no, outcome, reasons, warnings, raw, external_id, email, last_name, country"
            " FROM import_record LEFT JOIN contact ON contact_id = target_id"
            " WHERE seqno = %(seqno)s ORDER BY record_no",
            {"seqno": seqno},
        )


def test_a_run_with_nothing_to_do_ends_with_its_sensor_skipped(engine: Any) -> None:
    workers = [p for p in engine.processes() if "LocalExecutor" in " ".join(p.cmdline())]
    before = _cpu_of_tasks(workers)
    run = engine.run("contact_import")
    assert run.wait() == "success"
    assert run.sense()["state"] == "skipped"
    # Measured at 0.1 s; the bound is for machines that do other things as well.
    assert _cpu_of_tasks(workers) - before < 3


def test_a_batch_goes_through_and_its_tasks_carry_its_number_and_file(engine: Any) -> None:
    seqno = engine.submit(contacts("A", 10))
    run = engine.work_off(seqno)
    batch = engine.batch(seqno)
    assert batch.succeeded
    assert batch.counts["created"] == 9
    for step in ("validate", "load", "close"):
        task = run.task(step)
        assert (task["state"], task["rendered_map_index"]) == ("success", batch.label)


def test_a_parked_record_is_replayed_by_the_next_run_once_its_contract_exists(engine: Any) -> None:
    """Though no batch waits: whichever run it is, the scheduled one may be faster."""
    path = engine.settings.templates / "result_codes.yml"
    text = path.read_text(encoding="utf-8").replace("unknown_contract: reject", "unknown_contract: park")
    chosen = templates.parse_template(text, "result_codes", loading.kinds(), "parking")
    file = engine.folder / "parked.csv"
    file.write_text("P1;02-02-2026;20;;\n")
    upload = uploads.keep_file(file, engine.settings.uploads)
    seqno = batches.register(engine.connection, upload, chosen, suite_hash(chosen), "DEMO",
                             by="tester", through="command line")  # fmt: skip
    run = engine.work_off(seqno)
    assert (engine.batch(seqno).counts["parked"], run.instance("replay")["state"]) == (1, "skipped")

    contract = reference.Contract(form_id="P1", sign_up_date=date(2026, 1, 1))
    domain = reference.Domain(code="DEMO", name="Demo", contracts=(contract,))
    reference.load(engine.connection, reference.Reference(domains=(domain,)))
    run = engine.run("contract_status_import")
    assert run.wait() == "success"
    (record,) = engine.ledger(seqno)
    assert (record["outcome"], record["parked"]["outcome"]) == ("parked", "updated")
    if run.sense()["state"] == "success":
        assert run.instance("replay")["state"] == "success"
        assert run.instance("import_batch.load")["state"] == "skipped"


def test_the_log_of_a_task_ends_with_the_outcomes(engine: Any) -> None:
    seqno = engine.submit(contacts("B", 10))
    run = engine.work_off(seqno)
    assert run.log("close") == [
        f"Import batch {engine.batch(seqno).label}: executed",
        "import completed           yes",
        "processed                  yes",
        "created                      9",
        "rejected                     1",
        "records in file             10",
    ]
    assert run.log("validate")[0].startswith(f"Import batch {seqno}: ")  # what the package itself logs


def test_the_log_of_a_task_has_seqno_and_run_as_fields_and_no_value_of_a_file(engine: Any) -> None:
    """Neither what is imported, nor what is refused, nor why the file is: the log is for people who may see no import."""
    header = "Customer number,Email,Last name,Country\n"
    good = "".join(f"canary-{n},canary{n}@example.com,Canary,DE\n" for n in range(9))
    steps = {header + good + "canary,canary,Canary,canary\n": ("validate", "load", "close"),
             header + "canary,canary,Canary,canary\n": ("validate",)}  # fmt: skip
    for content, those in steps.items():
        seqno = engine.submit(content)
        run = engine.work_off(seqno)
        for step in those:
            lines = run._lines(step)
            ours = [line for line in lines if str(line.get("logger", "")).startswith("rowledger")]
            assert ours
            assert {(line["seqno"], line["run_id"]) for line in ours} == {(seqno, run.run_id)}
            assert "canary" not in json.dumps(lines).lower()
    assert "canary" in (engine.batch(seqno).error_message or "")
    assert any("too_many_rejects" in str(line) for line in lines)


def test_the_ledger_names_the_run_that_worked(engine: Any) -> None:
    seqno = engine.submit(contacts("C", 1) + "C1,c1@example.com,Two,DE\n")
    run = engine.work_off(seqno)
    event = batches.events(engine.connection, seqno)[-1]
    assert event["event"] == "executed"
    assert run.run_id in event["by"]


def test_a_file_that_breaks_its_template_is_red_at_once(engine: Any) -> None:
    seqno = engine.submit("Customer number;Email;Last name\n1;a@example.com;A\n")
    run = engine.work_off(seqno)
    assert run.state() == "failed"
    assert (run.task("validate")["state"], run.task("validate")["try_number"]) == ("failed", 1)
    assert run.task("validate")["rendered_map_index"] == engine.batch(seqno).label
    assert [run.task(step)["state"] for step in ("load", "close")] == ["upstream_failed"] * 2
    batch = engine.batch(seqno)
    assert (batch.status, batch.import_completed, batch.processed) == ("executed", False, False)
    assert "semicolon" in (batch.error_message or "")


def test_clearing_a_red_task_reruns_it_once_its_cause_is_mended(engine: Any) -> None:
    with transaction(engine.connection) as cursor:
        cursor.execute("DELETE FROM reference_value WHERE list_name = 'countries'")
    try:
        seqno = engine.submit(contacts("D", 10))
        run = engine.work_off(seqno)
        assert run.task("validate")["state"] == "failed"
        assert "countries" in (engine.batch(seqno).error_message or "")
    finally:
        reference.load(engine.connection, reference.read(DATA / "reference.yml"))
    run.clear("validate")
    assert run.wait() == "success"
    assert engine.batch(seqno).succeeded


def test_clearing_a_task_of_a_finished_batch_changes_nothing(engine: Any) -> None:
    seqno = engine.submit(contacts("E", 10))
    run = engine.work_off(seqno)
    before = everything(engine, seqno)
    run.clear("validate")
    assert run.wait() == "success"
    assert run.task("validate")["try_number"] == 2
    assert everything(engine, seqno) == before


def test_clearing_a_whole_run_takes_its_batches_up_again_in_their_places(engine: Any) -> None:
    seqno = engine.submit("Email;Last name\na@example.com;A\n")
    run = engine.work_off(seqno)
    index = run.task("validate")["map_index"]
    engine.api.call("POST", f"{run._path}/clear", {"dry_run": False, "only_failed": False})
    engine.until(lambda: run.state() not in ("success", "failed"))
    assert run.wait() == "failed"
    assert (run.task("validate")["map_index"], run.task("validate")["state"]) == (index, "failed")
    assert [event["event"] for event in batches.events(engine.connection, seqno)] == [
        "uploaded", "failed", "reopened", "failed",
    ]  # fmt: skip


def test_tasks_killed_midway_are_retried_and_the_batch_ends_as_if_nothing_had_been(
    engine: Any, database_url: str, tmp_path: Path
) -> None:
    content = contacts("F", LARGE)
    seqno = engine.submit(content)
    run = engine.take_on(seqno)
    for mark in ("validated_records", "loaded_records"):
        engine.until(lambda mark=mark: getattr(engine.batch(seqno), mark) > 0)
        engine.task_process().kill()
        assert getattr(engine.batch(seqno), mark) < LARGE * 0.9, "the task was too fast to be killed midway"
    assert run.wait() == "success"
    assert [run.task(step)["try_number"] for step in ("validate", "load", "close")] == [2, 2, 1]
    assert became(engine.connection, seqno) == _undisturbed(engine.settings, database_url, content, tmp_path)
    assert [c for c in ledger.check(engine.connection) if c["violations"]] == []


def test_only_processes_that_fork_tasks_have_great_expectations_loaded(engine: Any) -> None:
    loaded = {}
    for process in engine.processes():
        with contextlib.suppress(psutil.Error, OSError):
            title = " ".join(process.cmdline())
            for component in ("LocalExecutor", "scheduler", "dag-processor", "api_server", "triggerer"):
                if component in title:
                    maps = Path(f"/proc/{process.pid}/maps").read_text()
                    loaded[component] = loaded.get(component, False) or "pandas/_libs" in maps
                    break
    assert loaded == {
        "LocalExecutor": True, "scheduler": True, "dag-processor": False, "api_server": False, "triggerer": False,
    }  # fmt: skip


def _cpu_of_tasks(workers: list[psutil.Process]) -> float:
    """Seconds of CPU that the finished tasks of these workers have taken."""
    times = [worker.cpu_times() for worker in workers]
    return sum(t.children_user + t.children_system for t in times)


def _undisturbed(settings: Settings, url: str, content: str, folder: Path) -> list[dict[str, Any]]:
    """What becomes of the same file in a database of its own, in this process."""
    with contextlib.closing(db.connect(url)) as connection:
        path = folder / "file.csv"
        path.write_text(content, encoding="utf-8")
        template = templates.find_template(settings.templates, "contacts", loading.kinds())
        upload = uploads.keep_file(path, folder / "uploads")
        seqno = batches.register(connection, upload, template, suite_hash(template), "DEMO",
                                  by="tester", through="command line")  # fmt: skip
        pipeline.work(pipeline.Worker(connection, settings, "tester"), seqno)
        return became(connection, seqno)
