"""What docker-compose.yml runs, as processes: two Celery workers, Redis, object storage, the FAB auth manager."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import composed as composed_processes
import psutil
import pytest
from composed import WORKERS, Composed
from faults.airflow_kills import throw_away_server

from rowledger import ledger, loading, reference
from rowledger.airflow import local
from rowledger.db import rows, transaction

DOMAINS = ("EAST", "NORTH", "SOUTH", "WEST")
BATCHES = 40
CONTACTS = 300


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("composed")
    with throw_away_server(folder) as server, composed_processes.started(server, folder) as running:
        yield running


def until(happened: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def upload(api: local.Api, port: int, domain: str, number: int) -> int:
    """Upload a file of contacts by the desk; returns its seqno."""
    lines = (f"{domain}{n},{domain}{n}@example.com,Batch {number},DE" for n in range(CONTACTS))
    body = "\n".join(["Customer number,Email,Last name,Country", *lines, ""])
    query = urlencode({"kind": "contact", "domain": domain, "template": "contacts", "file_name": f"{number}.csv"})
    headers = {"Authorization": f"Bearer {api.token()}", "Content-Type": "text/csv", "Idempotency-Key": f"many-{number}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", f"/imports/api/v1/batches?{query}", body, headers)
    answer = connection.getresponse()
    told = answer.read()
    assert answer.status == 201, told
    return int(json.loads(told)["seqno"])


def found(composed: Composed, query: str, **values: Any) -> list[dict[str, Any]]:
    with transaction(composed.connection) as cursor:
        return rows(cursor, query, values)


def done(composed: Composed) -> int:
    return int(found(composed, "SELECT count(*) AS n FROM import_batch WHERE status = 'executed'")[0]["n"])


def kill_worker(composed: Composed, name: str) -> None:
    """Kill a worker with all that it has started, as if its machine were gone."""
    for process in psutil.process_iter():
        if local._mark(process) == str(composed.place.home) and f"{name}@" in " ".join(process.cmdline()):
            local._end_session(os.getsid(process.pid))
            return
    raise AssertionError(f"{name} does not run")


def test_batches_are_spread_over_workers_and_a_lost_worker_loses_nothing(composed: Composed) -> None:
    domains = tuple(reference.Domain(code=code, name=code.title()) for code in DOMAINS)
    reference.load(composed.connection, reference.Reference(domains=domains))
    seqnos = [upload(composed.api, composed.place.port, DOMAINS[n % len(DOMAINS)], n) for n in range(BATCHES)]
    addresses = found(composed, "SELECT file_path FROM import_batch")
    assert all(one["file_path"].startswith("s3://rowledger-uploads/") for one in addresses)
    composed.api.call("PATCH", "/dags/contact_import", {"is_paused": False})
    composed.api.call("POST", "/dags/contact_import/dagRuns", {"logical_date": None})
    until(lambda: done(composed) >= 5)
    kill_worker(composed, WORKERS[0])
    until(lambda: done(composed) == BATCHES)
    ends = found(composed, "SELECT processed, import_completed FROM import_batch WHERE seqno = ANY(%(seqnos)s)", seqnos=seqnos)
    assert len(ends) == BATCHES
    assert all(one["processed"] and one["import_completed"] for one in ends)
    assert [check for check in ledger.check(composed.connection) if check["violations"]] == []
    names = found(composed, "SELECT code, array_agg(DISTINCT last_name) AS names, count(*) AS n FROM contact JOIN domain USING (domain_id) GROUP BY code ORDER BY code")
    last = [{"code": code, "names": [f"Batch {BATCHES - len(DOMAINS) + n}"], "n": CONTACTS} for n, code in enumerate(DOMAINS)]
    assert names == last
    for worker in WORKERS:
        assert "Executing workload in Celery" in composed.log(worker)
