"""What docker-compose.yml runs, as processes: two Celery workers, Redis, object storage, the FAB auth manager."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import composed as processes
import psutil
import pytest
from composed import WORKERS, Composed
from engine import execute
from faults.airflow_kills import throw_away_server

from rowledger import ledger, reference
from rowledger.airflow import local
from rowledger.db import rows, transaction

sys.path.insert(0, str(Path(__file__).parents[1] / "desk"))
from matrix import address, expected, routes

DATA = Path(__file__).parents[1] / "data"
DOMAINS = ("EAST", "NORTH", "SOUTH", "WEST")
BATCHES = 40
CONTACTS = 300
HUGE = 6000  # contacts in a file that is worked in parts
DAGS = sorted(path.stem for path in (local.ROOT / "dags").glob("*.py"))


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("composed")
    with throw_away_server(folder) as server, processes.started(server, folder) as running:
        reference.load(running.connection, reference.read(DATA / "reference.yml"))
        domains = tuple(reference.Domain(code=code, name=code.title()) for code in DOMAINS)
        reference.load(running.connection, reference.Reference(domains=domains))
        yield running


pytestmark = pytest.mark.timeout(1500)  # minutes on a machine of its own, more on a busy one


def until(
    happened: Callable[[], Any], seconds: float = 180, progress: Callable[[], Any] = lambda: None
) -> None:
    """Wait as long as there is progress."""
    stood, deadline = progress(), time.monotonic() + seconds
    while not happened():
        if (stands := progress()) != stood:
            stood, deadline = stands, time.monotonic() + seconds
        assert time.monotonic() < deadline, f"it did not happen in time, after {stood}"
        time.sleep(0.2)


def found(composed: Composed, query: str, **values: Any) -> list[dict[str, Any]]:
    with transaction(composed.connection) as cursor:
        return rows(cursor, query, values)


def contacts(domain: str, number: int, records: int = CONTACTS) -> bytes:
    lines = (f"{domain}{n},{domain}{n}@example.com,Batch {number},DE" for n in range(records))
    return "\n".join(["Customer number,Email,Last name,Country", *lines, ""]).encode()


def send(composed: Composed, domain: str, number: int, records: int = CONTACTS) -> tuple[int, bytes]:
    """Upload a file by the desk; returns what it answers."""
    said = {"kind": "contact", "domain": domain, "template": "contacts", "file_name": f"{number}.csv"}
    return composed.ask(
        "POST", f"/imports/api/v1/batches?{urlencode(said)}", contacts(domain, number, records),
        {"Content-Type": "text/csv", "Idempotency-Key": f"{domain}-{number}"},
    )  # fmt: skip


def upload(composed: Composed, domain: str, number: int, records: int = CONTACTS) -> int:
    """Upload a file by the desk; returns its seqno."""
    status, answer = send(composed, domain, number, records)
    assert status == 201, answer
    return int(json.loads(answer)["seqno"])


def run(composed: Composed, dag: str) -> None:
    """Start a run of a DAG, which nobody has had to switch on."""
    composed.api.call("POST", f"/dags/{dag}/dagRuns", {"logical_date": None})


def ended(composed: Composed) -> int:
    return int(found(composed, "SELECT count(*) AS n FROM import_batch WHERE status = 'executed'")[0]["n"])


def kill_a_worker_at_work(composed: Composed) -> None:
    """Kill the worker whose task has been at it for longest, with all that it has started, as if its machine were gone."""
    names: list[dict[str, Any]] = []
    until(lambda: names.extend(found(composed, AT_WORK, own=f"rowledger {os.getpid()}")) or names)
    local._end_session(os.getsid(int(names[0]["application_name"].split()[1])))


AT_WORK = """
    SELECT application_name FROM pg_stat_activity WHERE datname = current_database()
    AND application_name ~ '^rowledger [0-9]+$' AND application_name <> %(own)s ORDER BY backend_start"""


def loaded(composed: Composed, title: str) -> list[bool]:
    """Whether each process whose title has this has pandas in its memory, which Great Expectations brings."""
    marked = [p for p in psutil.process_iter() if local._mark(p) == str(composed.place.home)]
    chosen = [p for p in marked if title in " ".join(p.cmdline())]
    return [any("/pandas/" in mapped.path for mapped in process.memory_maps()) for process in chosen]


def test_workers_are_warm_and_the_scheduler_does_not_pay_for_it(composed: Composed) -> None:
    for worker in WORKERS:
        assert loaded(composed, f"{worker}@")
        assert all(loaded(composed, f"{worker}@"))
    assert loaded(composed, "scheduler")
    assert not any(loaded(composed, "airflow scheduler"))


def test_every_dag_is_on_without_a_click(composed: Composed) -> None:
    until(lambda: composed.api.call("GET", "/dags")["total_entries"] == len(DAGS))
    listed = {dag["dag_id"]: dag["is_paused"] for dag in composed.api.call("GET", "/dags")["dags"]}
    assert listed == dict.fromkeys(DAGS, False)


def test_what_airflow_itself_keeps_is_cleaned_up(composed: Composed) -> None:
    """The service `groomer`, once round: files and runs that are old go, others stay."""
    logs = Path(composed.place.home) / "logs"
    for name, days in (("old.log", 16), ("new.log", 14)):
        (logs / "dag_id=any").mkdir(parents=True, exist_ok=True)
        (logs / "dag_id=any" / name).touch()
        then = time.time() - days * 86400
        os.utime(logs / "dag_id=any" / name, (then, then))
    (once,) = re.findall(r"do\n(.*)touch", processes.command("groomer")[-1], re.DOTALL)
    said = composed.run(["bash", "-euc", once])
    assert [path.name for path in (logs / "dag_id=any").iterdir()] == ["new.log"]
    assert "Performing dry run" not in said


def test_batches_are_spread_over_workers_and_a_lost_worker_loses_nothing(composed: Composed) -> None:
    """One of them is a file so huge that it is worked in parts."""
    huge = upload(composed, "DEMO", 0, HUGE)
    for number in range(BATCHES):
        upload(composed, DOMAINS[number % len(DOMAINS)], number)
    kept = found(composed, "SELECT file_path FROM import_batch")
    assert {one["file_path"].rpartition("/")[0][:-2] for one in kept} == {"s3://rowledger-uploads/"}
    run(composed, "contact_import")
    until(lambda: ended(composed) >= 5)
    kill_a_worker_at_work(composed)
    until(lambda: ended(composed) == BATCHES + 1, progress=lambda: ended(composed))
    assert found(composed, "SELECT seqno, error_message FROM import_batch WHERE NOT processed") == []
    assert [check for check in ledger.check(composed.connection) if check["violations"]] == []
    last = found(
        composed,
        "SELECT code, array_agg(DISTINCT last_name) AS names, count(*) AS n FROM contact JOIN domain USING (domain_id)"
        " WHERE code = ANY(%(codes)s) GROUP BY code ORDER BY code",
        codes=list(DOMAINS),
    )
    assert last == [
        {"code": code, "names": [f"Batch {BATCHES - len(DOMAINS) + place}"], "n": CONTACTS}
        for place, code in enumerate(DOMAINS)
    ]
    for worker in WORKERS:
        assert len(re.findall("Executing workload in Celery", composed.log(worker))) > BATCHES // 4
    assert "Detected a task instance without a heartbeat" in composed.log("scheduler")
    the_parts_of_one_file_are_tasks_of_their_own(composed, huge)


def the_parts_of_one_file_are_tasks_of_their_own(composed: Composed, seqno: int) -> None:
    (batch,) = found(
        composed, "SELECT parts, run_id, created FROM import_batch WHERE seqno = %(seqno)s", seqno=seqno
    )
    assert (batch["parts"], batch["created"]) == (3, HUGE)
    run = f"/dags/contact_import/dagRuns/{quote(batch['run_id'], safe='')}/taskInstances?limit=1000"
    tasks = composed.api.call("GET", run)["task_instances"]
    for step in ("validate", "load", "close"):
        mine = [
            one
            for one in tasks
            if one["task_id"] == f"import_batch.{step}" and f"#{seqno} " in (one["rendered_map_index"] or "")
        ]
        assert sorted(one["rendered_map_index"] for one in mine) == [
            f"#{seqno} 0.csv, part {part} of 3" for part in (1, 2, 3)
        ]
        assert {one["state"] for one in mine} == {"success"}


def kept(composed: Composed, seqno: int) -> str:
    """The bucket and key of the object of a batch."""
    address = found(composed, "SELECT file_path FROM import_batch WHERE seqno = %(seqno)s", seqno=seqno)
    return str(address[0]["file_path"]).removeprefix("s3://")


def test_the_original_file_comes_back_from_object_storage_byte_for_byte(composed: Composed) -> None:
    seqno = upload(composed, "EAST", 100)
    status, body = composed.ask("GET", f"/imports/api/v1/batches/{seqno}/file")
    assert (status, body) == (200, contacts("EAST", 100))


def test_an_object_that_is_gone_or_changed_fails_its_batch_with_the_reason(composed: Composed) -> None:
    gone, changed, whole = (upload(composed, domain, 101) for domain in DOMAINS[:3])
    objects = composed.objects()
    bucket, _, key = kept(composed, gone).partition("/")
    objects.delete_object(Bucket=bucket, Key=key)
    bucket, _, key = kept(composed, changed).partition("/")
    objects.put_object(Bucket=bucket, Key=key, Body=b"other bytes")
    status, _ = composed.ask("GET", f"/imports/api/v1/batches/{gone}/file")
    assert status == 404
    run(composed, "contact_import")
    query = "SELECT seqno, error_rule FROM import_batch WHERE seqno = ANY(%(seqnos)s) AND status = 'executed' ORDER BY 1"
    seqnos = [gone, changed, whole]
    until(lambda: len(found(composed, query, seqnos=seqnos)) == len(seqnos))
    assert [one["error_rule"] for one in found(composed, query, seqnos=seqnos)] == [
        "file_missing", "file_changed", None,
    ]  # fmt: skip


def test_the_command_line_keeps_files_in_object_storage_too(composed: Composed, tmp_path: Path) -> None:
    (tmp_path / "by_hand.csv").write_bytes(contacts("EAST", 102))
    words = ["--kind", "contact", "--domain", "EAST", "--template", "contacts"]
    seqno = int(composed.run(["rowledger", "submit", str(tmp_path / "by_hand.csv"), *words]))
    assert kept(composed, seqno).startswith("rowledger-uploads/")


def test_what_is_kept_in_object_storage_can_be_listed_and_let_go(composed: Composed) -> None:
    seqno = upload(composed, "EAST", 106)
    composed.objects().put_object(Bucket="rowledger-uploads", Key="notes.txt", Body=b"somebody else's")
    code = """
import hashlib, json, sys, time
from rowledger.airflow.storage import settings
store = settings().store
before = list(store.kept())
sha256 = sys.argv[1]
listed_at = {one: when for one, _, when in before}[sha256]
there = abs(store.kept_at(sha256) - listed_at) < 2
removed = [store.remove(sha256), store.remove(sha256)]
gone = store.kept_at(sha256) is None
recent = all(time.time() - when < 3600 for _, _, when in before)
after = [one for one, _, _ in store.kept()]
print(json.dumps([sorted(one[:2] for one in before), removed, there and gone and recent, sorted(after)]))
"""
    sha256 = kept(composed, seqno)[-64:]
    said = composed.run([sys.executable, "-c", code, sha256]).splitlines()[-1]
    before, removed, recent, after = json.loads(said)
    uploaded = found(composed, "SELECT DISTINCT file_sha256 AS sha256, file_bytes AS bytes FROM import_batch")
    assert [sha256, len(contacts("EAST", 106))] in before
    assert {one for one, _ in before} <= {one["sha256"] for one in uploaded}
    assert (removed, recent) == ([True, False], True)
    assert after == [one for one, _ in before if one != sha256]


def test_feeds_are_looked_at_in_a_bucket_by_a_connection_of_airflow_and_in_the_folder_that_came_along(
    composed: Composed,
) -> None:
    objects = composed.objects()
    objects.create_bucket(Bucket="agency-files")
    objects.put_object(Bucket="agency-files", Key="outgoing/may.csv", Body=contacts("EAST", 107))
    composed.api.call(
        "POST", "/connections",
        {"connection_id": "agency", "conn_type": "aws", "login": "tester", "password": "a secret key",
         "extra": json.dumps({"endpoint_url": composed.variables["AWS_ENDPOINT_URL"], "region_name": "us-east-1"})},
    )  # fmt: skip
    feed = Path(composed.variables["ROWLEDGER_FEEDS"]) / "agency.yml"
    feed.write_text(
        "{title: An agency, place: s3://agency@agency-files/outgoing, pattern: '*.csv', kind: contact, domain: EAST,"
        " template: contacts, settled_after: 0s}"
    )
    for dag in ("contact_import", "contract_status_import"):
        run(composed, dag)
    query = "SELECT processed FROM import_batch WHERE uploaded_by = 'feed agency' AND status = 'executed'"
    until(lambda: found(composed, query))
    assert found(composed, query) == [{"processed": True}]
    listed = objects.list_objects_v2(Bucket="agency-files")["Contents"]
    assert [one["Key"] for one in listed] == ["outgoing/taken/may.csv"]
    looked = "SELECT name, trouble FROM feed WHERE looked_at IS NOT NULL ORDER BY name"
    until(lambda: len(found(composed, looked)) == 2)
    assert found(composed, looked) == [{"name": name, "trouble": None} for name in ("agency", "call_centre")]
    feed.unlink()


ROLES = {"viewer": "Viewer", "user": "User", "op": "Op", "admin": "Admin"}


def test_each_role_of_the_fab_auth_manager_gets_what_the_desk_says(composed: Composed) -> None:
    upload(composed, "EAST", 103)
    known = routes()
    wrong = []
    for user, role in ROLES.items():
        if user != local.USER:
            composed.add_user(user, role)
        for (method, path), right in known.items():
            wanted = expected(user, right, known=True)
            headers = {"Sec-Fetch-Site": "same-origin"}
            status, _ = composed.ask(method, f"/imports{address(path)}", None, headers, user)
            if status >= 500 or not (status not in (401, 403, 405) if wanted == "in" else status in wanted):
                wrong.append(f"{role}: {method} {path}: {status}, not {wanted}")
    assert wrong == []


def test_a_user_who_is_deactivated_is_refused_within_a_minute(composed: Composed) -> None:
    composed.add_user("leaver", "User")

    def status() -> int:
        return composed.ask("GET", "/imports/api/v1/batches", user="leaver")[0]

    assert status() == 200
    execute(composed.metadata_url, "UPDATE ab_user SET active = false WHERE username = 'leaver'")
    until(lambda: status() == 403, 60)


def test_uploads_wait_for_object_storage_that_cannot_be_reached(composed: Composed) -> None:
    """Comes last: it is not started again."""
    seqno = upload(composed, "EAST", 104)
    before = len(found(composed, "SELECT seqno FROM import_batch"))
    composed.end_object_storage()
    status, answer = composed.ask("GET", f"/imports/api/v1/batches/{seqno}/file")
    assert (status, b"The object storage of the uploads cannot be reached" in answer) == (503, True)
    status, answer = send(composed, "EAST", 105)
    assert (status, b"The object storage of the uploads cannot be reached" in answer) == (503, True)
    assert b"rowledger-uploads" not in answer, "where it is, is nobody's business"
    assert len(found(composed, "SELECT seqno FROM import_batch")) == before
    assert list((composed.home / "uploads").iterdir()) == []
