"""What Airflow executes by itself: DAG files, the plugin, the local settings. No server runs here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rowledger import batches, control, ledger, loading, pipeline, reference, roll_back
from rowledger.airflow import local
from rowledger.db import Connection, transaction
from rowledger.reference import Reference
from rowledger.settings import Settings

ROOT = Path(__file__).parent.parent.parent
DAGS = sorted((ROOT / "dags").glob("*.py"))
IMPORTS = [path for path in DAGS if path.stem.endswith("_import")]
HEAVY = ("great_expectations", "pandas", "pyarrow", "duckdb", "phonenumbers", "email_validator")


def python(code: str, home: Path, **variables: str) -> str:
    """Run code in a fresh process as one of Airflow's would be, and return what it prints last."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "config"), str(ROOT / "plugins")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_every_import_kind_has_its_dag_file() -> None:
    assert [path.stem for path in IMPORTS] == [f"{kind}_import" for kind in sorted(loading.kinds())]


def test_dag_files_are_alike_line_by_line_but_for_their_kind() -> None:
    codes = []
    for path in IMPORTS:
        code = path.read_text(encoding="utf-8").split('"""', 2)[2]
        codes.append(code.replace(path.stem.removesuffix("_import"), "KIND"))
    assert len(set(codes)) == 1


def test_every_dag_file_is_the_manual_of_its_dag() -> None:
    for path in DAGS:
        manual = path.read_text(encoding="utf-8").split('"""')[1]
        assert [word for word in ("Waits for", "Writes", "When a task is red") if word not in manual] == []


def test_task_bodies_have_up_to_three_lines() -> None:
    for path in DAGS:
        for body in re.findall(
            r"    @(?:batch_)?task.*?\n    def .*?\n((?:        .*\n)+)", path.read_text(encoding="utf-8")
        ):
            assert len(body.splitlines()) <= 3, path


@pytest.mark.parametrize(
    "path", [*DAGS, ROOT / "plugins" / "rowledger_plugin.py"], ids=lambda path: path.stem
)
def test_what_airflow_parses_imports_nothing_heavy(path: Path, tmp_path: Path) -> None:
    code = f"""
import runpy, sys
runpy.run_path({str(path)!r})
print([name for name in {HEAVY} if name in sys.modules])
"""
    assert python(code, tmp_path) == "[]"


def test_the_dags_have_the_steps_of_the_pipeline_and_never_catch_up(tmp_path: Path) -> None:
    code = """
import json, logging
from airflow.dag_processing.dagbag import DagBag
bag = DagBag({folder!r})
print(json.dumps({{
    "errors": list(bag.import_errors.values()),
    "dags": {{
        dag.dag_id: [dag.catchup, str(dag.timezone), {{t.task_id: sorted(t.downstream_task_ids) for t in dag.tasks}}]
        for dag in bag.dags.values()
    }},
}}))
""".format(folder=str(ROOT / "dags"))
    found = json.loads(python(code, tmp_path))
    assert found["errors"] == []
    assert found["dags"] == {
        path.stem: [False, "UTC", {
            "sense": ["import_batch.close", "import_batch.load", "import_batch.validate", "replay", "settle"],
            "replay": [],
            "settle": [],
            "import_batch.validate": ["import_batch.load"],
            "import_batch.load": ["import_batch.close"],
            "import_batch.close": [],
        }]
        for path in IMPORTS
    } | {
        "contract_status_timers": [False, "UTC", {"give": []}],
        "import_notices": [False, "UTC", {"tell": []}],
        "import_approval": [False, "UTC", {"held": ["ask"], "ask": []}],
        "import_housekeeping": [False, "UTC", {"clean": []}],
    }  # fmt: skip


def test_the_example_of_a_consumer_is_a_dag_that_waits_for_the_asset_of_its_kind(tmp_path: Path) -> None:
    code = """
from airflow.dag_processing.dagbag import DagBag
bag = DagBag({folder!r})
dag = bag.dags["after_contract_statuses"]
print(bag.import_errors, [asset.name for asset in dag.timetable.asset_condition.objects])
""".format(folder=str(ROOT / "include" / "examples"))
    assert python(code, tmp_path) == "{} ['rowledger/contract_status']"


def test_the_timers_task_gives_what_is_due_and_its_log_ends_with_it(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    statuses = [
        {"code": "10", "phase": "NEW", "description": "Signed", "initial": True},
        {"code": "35", "phase": "NEW", "description": "Confirmed", "automatic_after_days": 30},
    ]
    domain = {
        "code": "TIMED", "name": "Timed", "phases": [{"code": "NEW", "description": "New"}], "statuses": statuses,
        "contracts": [{"form_id": f"F{n}", "sign_up_date": f"2026-01-0{n}"} for n in range(1, 4)],
    }  # fmt: skip
    reference.load(connection, Reference.model_validate({"domains": [domain]}))
    code = """
import logging, sys
from types import SimpleNamespace
from airflow.sdk.execution_time.context import set_current_context
from rowledger.airflow import tasks
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True)
run = SimpleNamespace(dag_id="contract_status_timers", run_id="run", triggering_user_name=None)
with set_current_context({"dag_run": run, "run_id": "run"}):
    tasks.give()
"""
    address = {"AIRFLOW_CONN_ROWLEDGER": local.airflow_connection(database_url)}
    assert python(code, tmp_path, **address).split() == ["TIMED", "35", "3", "0"]
    assert python(code, tmp_path, **address) == "Nothing was due."


def test_the_housekeeping_task_removes_what_is_due_and_its_log_ends_with_it(
    database_url: str, connection: Connection, settings: Settings, submit: Callable[..., int], tmp_path: Path
) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    vanished = settings.uploads / "ab" / "ab".ljust(64, "0")
    vanished.parent.mkdir(parents=True)
    vanished.write_text("lost")
    os.utime(vanished, (0, 0))
    (tmp_path / "retention.yml").write_text("others: {upload_keys: 30}\n")
    seqno = submit("Customer number,Last name\nK1,One\n")
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO upload_key (by, key, fingerprint, seqno, used_at) VALUES ('a', 'k', 'f', %s, '2026-01-01')",
            (seqno,),
        )
    code = """
import io, logging
from types import SimpleNamespace
from airflow.sdk.execution_time.context import set_current_context
from rowledger.airflow import tasks
said = io.StringIO()
logging.basicConfig(stream=said, format="%(message)s", level=logging.INFO, force=True)
run = SimpleNamespace(dag_id="import_housekeeping", run_id="run", triggering_user_name=None)
with set_current_context({"dag_run": run, "run_id": "run"}):
    tasks.keep_house()
    tasks.keep_house()
print(" | ".join(" ".join(line.split()) for line in said.getvalue().splitlines()))
"""
    variables = {
        "AIRFLOW_CONN_ROWLEDGER": local.airflow_connection(database_url),
        "ROWLEDGER_HOME": str(settings.home),
        "ROWLEDGER_TEMPLATES": str(templates),
    }
    assert python(code, tmp_path, **variables) == (
        "domain what number bytes | DEMO Idempotency-Keys 1 0 | vanished uploads 1 4 | There was nothing to remove."
    )
    assert not vanished.exists()


def test_the_settle_task_completes_what_was_cancelled_and_rolls_back_what_was_asked_for(
    database_url: str, connection: Connection, settings: Settings, submit: Callable[..., int], tmp_path: Path
) -> None:
    seqno = submit("F1;02-02-2026;20;;\nF9;02-02-2026;20;;\n", "result_codes")
    worker = pipeline.Worker(connection, settings, "tester")
    pipeline.validate(worker, seqno)
    pipeline.load(worker, seqno)
    control.cancel(connection, seqno, by="anna")
    roll_back.ask(connection, seqno, by="anna", why="wrong file")
    code = """
import io, logging
from types import SimpleNamespace
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.context import set_current_context
from rowledger.airflow import tasks
said = io.StringIO()
logging.basicConfig(stream=said, format="%(message)s", level=logging.INFO, force=True)
run = SimpleNamespace(dag_id="contract_status_import", run_id="run", triggering_user_name=None)
with set_current_context({"dag_run": run, "run_id": "run"}):
    assert tasks.sense("contract_status") == []
    tasks.settle("contract_status")
    for skipped in (tasks.settle, tasks.sense):
        try:
            skipped("contract_status")
        except AirflowSkipException as skip:
            print(skip, file=said)
print(said.getvalue().replace("\\n", " | "))
"""
    said = python(code, tmp_path, AIRFLOW_CONN_ROWLEDGER=local.airflow_connection(database_url))
    assert f"Import batch {seqno}: the cells of its refused records are in the ledger now" in said
    assert f"Import batch {seqno} is rolled back: 1 record restored, 0 spared" in said
    assert said.count("No ended batch of the kind contract_status lacks anything") == 1
    assert said.count("No import batch of the kind contract_status is waiting") == 1
    assert [record["raw"][0] for record in ledger.records(connection, seqno, ["rejected"])] == ["F9"]


def test_the_sensor_takes_files_of_a_place_that_is_reached_through_airflow(
    database_url: str, connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    place, feeds = tmp_path / "place", tmp_path / "feeds"
    place.mkdir()
    feeds.mkdir()
    (place / "may.csv").write_text("Customer number,Email,Last name,Country\n1,a@example.com,A,DE\n")
    feed = f"""{{title: Files, place: "file://{place}", pattern: "*.csv", kind: contact, domain: DEMO,
        template: contacts, settled_after: 0s}}"""
    (feeds / "files.yml").write_text(feed)
    (feeds / "nowhere.yml").write_text(feed.replace("file:", "s3:"))
    (feeds / "wrong.yml").write_text("title: Wrong")
    code = """
import io, logging
from types import SimpleNamespace
from airflow.sdk.execution_time.context import set_current_context
from rowledger.airflow import tasks
said = io.StringIO()
logging.basicConfig(stream=said, format="%(message)s", level=logging.INFO, force=True)
run = SimpleNamespace(dag_id="contact_import", run_id="run", triggering_user_name=None)
with set_current_context({"dag_run": run, "run_id": "run"}):
    print(tasks.sense("contact"), file=said)
print(said.getvalue().replace("\\n", " | "))
"""
    said = python(
        code, tmp_path, AIRFLOW_CONN_ROWLEDGER=local.airflow_connection(database_url),
        ROWLEDGER_FEEDS=str(feeds), ROWLEDGER_HOME=str(settings.home), ROWLEDGER_TEMPLATES=str(settings.templates),
    )  # fmt: skip
    (batch,) = batches.listed(connection)
    assert (batch.uploaded_by, batch.file_name) == ("feed files", "may.csv")
    assert said.endswith(f"[[{batch.seqno}, 0]] |")
    assert "Feed nowhere: s3:" in said
    assert "A feed is left out: " in said
    assert [path.name for path in (place / "taken").iterdir()] == ["may.csv"]


def test_the_plugin_scan_executes_no_module_of_the_package_under_a_bare_name(tmp_path: Path) -> None:
    code = """
import json, sys
from airflow import plugins_manager
from airflow.sdk import plugins_manager as sdk_plugins_manager
plugins_manager.get_plugin_info()
sdk_plugins_manager.integrate_macros_plugins()
package = {package!r}
bare = [
    name for name, module in list(sys.modules.items())
    if str(getattr(module, "__file__", None) or "").startswith(package) and name.split(".")[0] != "rowledger"
]
names = [plugin["name"] for plugin in plugins_manager.get_plugin_info()]
print(json.dumps([bare, "rowledger" in names, "great_expectations" in sys.modules]))
""".format(package=str(ROOT / "plugins" / "rowledger") + os.sep)
    assert json.loads(python(code, tmp_path)) == [[], True, False]


@pytest.mark.parametrize(
    ("base_url", "page"),
    [
        ("http://localhost:8080", "/plugin/imports/imports/batches/7"),
        ("https://example.com/air/flow/", "/air/flow/plugin/imports/air/flow/imports/batches/7"),
    ],
)
def test_a_link_to_a_page_of_the_desk_stays_under_the_path_that_airflow_is_served_at(
    base_url: str, page: str, tmp_path: Path
) -> None:
    code = "from rowledger.airflow import desk; print(desk.page_path('batches/7'))"
    assert python(code, tmp_path, AIRFLOW__API__BASE_URL=base_url) == page


@pytest.mark.parametrize(
    ("arguments", "executor", "warm"),
    [
        ("scheduler", "LocalExecutor", True),
        ("celery worker", "CeleryExecutor", True),
        ("scheduler", "CeleryExecutor", False),
        ("dag-processor", "LocalExecutor", False),
        ("api-server", "LocalExecutor", False),
        ("triggerer", "LocalExecutor", False),
        ("db migrate", "LocalExecutor", False),
    ],
)
def test_only_processes_that_fork_tasks_are_warmed(
    arguments: str, executor: str, warm: bool, tmp_path: Path
) -> None:
    code = f"""
import sys
sys.argv = ["airflow", *{arguments.split()}]
import airflow_local_settings
print("great_expectations" in sys.modules)
"""
    assert python(code, tmp_path, AIRFLOW__CORE__EXECUTOR=executor) == str(warm)


@pytest.mark.parametrize("uploads", ["", "s3://bucket"])
def test_workers_are_warmed_for_object_storage_if_uploads_are_there(uploads: str, tmp_path: Path) -> None:
    code = """
import sys
sys.argv = ["airflow", "celery", "worker"]
import airflow_local_settings
print("s3fs" in sys.modules)
"""
    variables = {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "ROWLEDGER_UPLOADS": uploads}
    assert python(code, tmp_path, **variables) == str(bool(uploads))
