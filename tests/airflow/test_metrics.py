"""What tasks measure: real processes with Airflow's StatsD switched on, a real listener; a dashboard that fits the names."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rowledger import batches, control, loading, metrics, pipeline
from rowledger.airflow import local
from rowledger.airflow.metrics import PREFIX
from rowledger.db import Connection, transaction
from rowledger.model import Outcome
from rowledger.settings import Settings
from tests.airflow.test_files import python

ROOT = Path(__file__).parents[2]
CODE = """
import logging
from types import SimpleNamespace
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.context import OutletEventAccessors, set_current_context
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from rowledger.airflow import tasks
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)  # as the task runner does
ti = SimpleNamespace(try_number=1)
run = SimpleNamespace(dag_id="contact_import", run_id="run 2", triggering_user_name=None)
said, real = [], tasks.pipeline.load

def load(worker, seqno):
    batch = real(worker, seqno)
    if worker.part == 2:  # the close of the first part is quicker than what is left of this task
        tasks.close([seqno, 1])
    return batch

tasks.pipeline.load = load
with set_current_context({"ti": ti, "dag_run": run, "run_id": "run 2", "outlet_events": OutletEventAccessors()}):
    taken = tasks.sense("contact")
    shares = list(taken)
    for step in (tasks.validate, tasks.load, tasks.close):
        for share in list(shares):
            try:
                step(share)
            except (AirflowFailException, AirflowSkipException) as error:
                said.append(str(error))
                shares.remove(share)
print(taken, *said)
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        opened.bind(("127.0.0.1", 0))
        opened.setblocking(False)
        yield opened


def received(listener: socket.socket) -> dict[str, str]:
    """Name -> value|type of what has arrived, of a counter all that have; each packet is one metric."""
    found = {}
    while True:
        try:
            name, _, value = listener.recv(65_536).decode().partition(":")
        except BlockingIOError:
            return found
        found[name] = f"{found[name]}, {value}" if name in found and value.endswith("|c") else value


def statsd(listener: socket.socket, database_url: str) -> dict[str, str]:
    return {
        "AIRFLOW_CONN_ROWLEDGER": local.airflow_connection(database_url),
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(listener.getsockname()[1]),
    }


def test_tasks_tell_what_waits_what_was_taken_over_and_what_became_of_records(
    listener: socket.socket, database_url: str, connection: Connection, settings: Settings,
    submit: Callable[..., int], tmp_path: Path,
) -> None:  # fmt: skip
    silent = submit("Customer number,Email,Last name\nK1,k1@example.com,One\nK2,nobody,Two\nK3,,Three\n")
    wrong = submit("Customer number;Email\nK1;x\n")
    control.pause(connection, submit("Customer number,Last name\nK9,Nine\n"), by="anna")
    pipeline.validate(pipeline.Worker(connection, settings, "tester", "run 1"), silent)
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET leased_until = now() - interval '1 s' WHERE seqno = %s", (silent,)
        )
    said = python(CODE, tmp_path, **statsd(listener, database_url))
    assert said.startswith(f"[[{silent}, 0], [{wrong}, 0]] The file is wrong: delimiter_mismatch")
    found = {name: value for name, value in received(listener).items() if ".rowledger." in name}
    took, rate, age = (
        found.pop(f"airflow.rowledger.{name}.contact")
        for name in ("duration", "records_per_second", "waiting_seconds")
    )
    assert found == {
        "airflow.rowledger.batches.contact.waiting": "1|g",
        "airflow.rowledger.batches.contact.in_progress": "1|g",
        "airflow.rowledger.batches.contact.paused": "1|g",
        "airflow.rowledger.take_overs.contact": "1|c",
        "airflow.rowledger.records.contact.created": "2|c",
        "airflow.rowledger.records.contact.rejected": "1|c",
        "airflow.rowledger.batches_ended.contact.succeeded": "1|c",
        "airflow.rowledger.batches_ended.contact.failed": "1|c",
    }  # fmt: skip
    assert batches.get(connection, silent).succeeded
    for value, sort in ((took, "ms"), (rate, "g"), (age, "g")):
        number, _, as_sort = value.partition("|")
        assert (float(number) > 0, as_sort) == (True, sort)


def test_the_end_of_a_batch_in_parts_is_told_once(
    listener: socket.socket, database_url: str, submit: Callable[..., int], tmp_path: Path
) -> None:
    whole = submit("Customer number,Email,Last name\nK1,k1@example.com,One\nK2,nobody,Two\nK3,,Three\n")
    wrong = submit("Customer number;Email\nK1;x\n")
    parts = {"ROWLEDGER_PART_BYTES": "1", "ROWLEDGER_MAX_PARTS": "2"}
    said = python(CODE, tmp_path, **statsd(listener, database_url), **parts)
    assert said.startswith(f"[[{whole}, 1], [{whole}, 2], [{wrong}, 1], [{wrong}, 2]] The file is wrong")
    assert "not worked in parts any more" in said
    assert {
        name: value for name, value in received(listener).items() if "_ended." in name or ".records." in name
    } == {
        "airflow.rowledger.records.contact.created": "2|c",
        "airflow.rowledger.records.contact.rejected": "1|c",
        "airflow.rowledger.batches_ended.contact.succeeded": "1|c",
        "airflow.rowledger.batches_ended.contact.failed": "1|c",
    }


def test_without_metrics_and_with_nobody_listening_tasks_work_as_ever(
    listener: socket.socket,
    database_url: str,
    connection: Connection,
    submit: Callable[..., int],
    tmp_path: Path,
) -> None:
    given = statsd(listener, database_url)
    first = submit("Customer number,Last name\nK1,One\n")
    python(CODE, tmp_path, AIRFLOW_CONN_ROWLEDGER=given["AIRFLOW_CONN_ROWLEDGER"])
    assert received(listener) == {}
    second = submit("Customer number,Last name\nK2,Two\n")
    listener.close()
    python(CODE, tmp_path, **given)
    assert [batches.get(connection, seqno).succeeded for seqno in (first, second)] == [True, True]


# The dashboard -------------------------------------------------------------------------------------------------


def sent() -> set[str]:
    """Every name that tasks may send."""
    names = set()
    for kind in loading.kinds():
        names |= {f"batches.{kind}.{state}" for state in metrics.UNFINISHED}
        names |= {f"batches_ended.{kind}.{how}" for how in metrics.ENDED}
        names |= {f"records.{kind}.{outcome}" for outcome in Outcome}
        names |= {
            f"{one}.{kind}" for one in ("waiting_seconds", "take_overs", "duration", "records_per_second")
        }
    return {f"airflow.{PREFIX}{name}" for name in names}


def exported() -> dict[str, set[str]]:
    """What the exporter makes of them by our mapping: name -> labels. A star is one part of a name."""
    found: dict[str, set[str]] = {}
    mappings = yaml.safe_load((ROOT / "deploy" / "statsd_exporter.yml").read_text())["mappings"]
    for name in sent():
        (one,) = (m for m in mappings if re.fullmatch(re.escape(m["match"]).replace(r"\*", "[^.]+"), name))
        found.setdefault(one["name"], set()).update(one["labels"])
    assert {m["name"] for m in mappings} == set(found)
    return found


def test_the_dashboard_shows_every_metric_by_the_name_it_has_behind_the_exporter() -> None:
    names, shown = exported(), set()
    dashboard = json.loads((ROOT / "deploy" / "grafana_dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) == len(expressions)
    for expression in expressions:
        for name, labels in re.findall(r"(rowledger_\w+)\{(.*?)\}", expression):
            base = re.sub("_(sum|count)$", "", name) if name not in names else name
            assert base in names, expression
            assert set(re.findall(r"(\w+)=", labels)) <= names[base], expression
            shown.add(base)
        for by in re.findall(r"by \((.*?)\)", expression):
            assert set(by.split(", ")) <= set().union(*(names[base] for base in shown)), expression
    assert shown == set(names)


def test_the_names_that_are_sent_are_those_of_the_list(
    connection: Connection, submit: Callable[..., int], work: Any
) -> None:
    batch = work(submit("Customer number,Email,Last name\nK1,k1@example.com,One\nK2,nobody,Two\n"))
    told = {**metrics.unfinished(connection, "contact"), **metrics.ended(batch)}
    assert {f"airflow.{PREFIX}{name}" for name in told} <= sent()
