"""What an outage piles up is drained in order, without a storm.

    PYTHONPATH=tests:plugins python -m faults.backlog --batches 500

A whole Airflow whose DAG has been off for 96 quarter-hours, and so many waiting batches of three domains, whose contacts
overlap: of each contact the last batch must have the last word.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine import HEADER, Engine, execute, started

from faults.airflow_kills import throw_away_server
from rowledger import db, ledger, reference
from rowledger.db import rows, transaction

DOMAINS = ("NORTH", "SOUTH", "WEST")
DAG = "contact_import"
KEYS, CONTACTS = 200, 20  # of a domain, and of a batch
GIVE_UP_SECONDS = 3 * 3600


@dataclass(frozen=True)
class Drained:
    """How a backlog was drained: runs of the DAG that took batches on, seconds, tasks at work at once, what is wrong."""

    batches: int
    runs: int
    seconds: float
    at_once: int
    violations: list[str]


def run(count: int, seed: int, per_run: int | None = None) -> Drained:
    """Pile up batches while the DAG is off, switch it on, and wait until all are done. ``per_run`` batches a run."""
    settings = {"ROWLEDGER_BATCHES_PER_RUN": str(per_run)} if per_run else {}
    with (
        tempfile.TemporaryDirectory(prefix="backlog-") as folder,
        throw_away_server(Path(folder)) as server,
        started(server, Path(folder) / "all", settings) as engine,
    ):
        _off_for_a_day(engine)
        last_word = _pile_up(engine, count, random.Random(seed))
        return _drain(engine, count, last_word)


def _off_for_a_day(engine: Engine) -> None:
    """Let the last run of the DAG have been 96 quarter-hours ago, as if no scheduler had been there since."""
    engine.until(lambda: _runs(engine) and not _open_runs(engine))
    engine.api.call("PATCH", f"/dags/{DAG}", {"is_paused": True})
    metadata = engine.server.get_uri("airflow")
    execute(metadata, _A_DAY_EARLIER)
    for one in _runs(engine):
        if one["dag_run_id"] != "a day ago":
            path = f"/dags/{DAG}/dagRuns/{one['dag_run_id'].replace('+', '%2B')}"
            engine.api.call("DELETE", path)
    columns = ("", "_create_after", "_data_interval_start", "_data_interval_end")
    earlier = ", ".join(
        f"next_dagrun{column} = next_dagrun{column} - interval '24 hours'" for column in columns
    )
    execute(metadata, f"UPDATE dag SET {earlier} WHERE dag_id = '{DAG}'")


# A copy: what names a run in Airflow's tables cannot be changed.
_A_DAY_EARLIER = f"""
    INSERT INTO dag_run
    SELECT (jsonb_populate_record(run, jsonb_build_object(
        'id', nextval('dag_run_id_seq'), 'run_id', 'a day ago', 'logical_date', logical_date - interval '24 hours',
        'run_after', run_after - interval '24 hours', 'data_interval_start', data_interval_start - interval '24 hours',
        'data_interval_end', data_interval_end - interval '24 hours'))).*
    FROM dag_run AS run WHERE dag_id = '{DAG}' AND run_type = 'scheduled' ORDER BY logical_date DESC LIMIT 1"""


def _runs(engine: Engine) -> list[dict[str, Any]]:
    return list(engine.api.call("GET", f"/dags/{DAG}/dagRuns?limit=100")["dag_runs"])


def _open_runs(engine: Engine) -> int:
    return sum(one["state"] in ("queued", "running") for one in _runs(engine))


def _pile_up(engine: Engine, count: int, draw: random.Random) -> dict[tuple[str, str], str]:
    """Upload batches for domains in turn; (domain, contact) -> the name that the last batch gives it."""
    domains = tuple(reference.Domain(code=code, name=code.title()) for code in DOMAINS)
    reference.load(engine.connection, reference.Reference(domains=domains))
    last_word = {}
    for number in range(count):
        domain = DOMAINS[number % len(DOMAINS)]
        keys = [f"{domain}{key}" for key in draw.sample(range(KEYS), CONTACTS)]
        engine.submit(HEADER + "".join(f"{key},,Batch {number},DE\n" for key in keys), domain=domain)
        last_word |= {(domain, key): f"Batch {number}" for key in keys}
    return last_word


def _drain(engine: Engine, count: int, last_word: dict[tuple[str, str], str]) -> Drained:
    before, began = {one["dag_run_id"] for one in _runs(engine)}, time.monotonic()
    with _most_tasks_at_once(engine) as most:
        engine.api.call("PATCH", f"/dags/{DAG}", {"is_paused": False})
        while _unfinished(engine):
            if time.monotonic() - began > GIVE_UP_SECONDS:
                break
            new = [one for one in _runs(engine) if one["dag_run_id"] not in before]
            if new and not _open_runs(engine) and _unfinished(engine):
                engine.trigger(DAG)  # in the place of the next quarter-hour
            time.sleep(1)
        seconds = time.monotonic() - began
    scheduled = [one for one in new if one["run_type"] == "scheduled"]
    taken = _query(engine, "SELECT count(DISTINCT run_id) AS n FROM import_batch")[0]["n"]
    wrong = [] if len(scheduled) <= 2 + seconds // 900 else [f"{len(scheduled)} scheduled runs"]
    return Drained(count, taken, seconds, most[0], wrong + _wrong(engine, last_word))


def _unfinished(engine: Engine) -> int:
    return int(_query(engine, "SELECT count(*) AS n FROM import_batch WHERE status <> 'executed'")[0]["n"])


def _query(engine: Engine, query: str) -> list[dict[str, Any]]:
    with transaction(engine.connection) as cursor:
        return rows(cursor, query)


@contextlib.contextmanager
def _most_tasks_at_once(engine: Engine) -> Iterator[list[int]]:
    """How many processes of tasks have been connected to Rowledger's database at once, looked at ten times a second."""
    most, leaving = [0], threading.Event()

    def look() -> None:
        with contextlib.closing(db.connect(str(engine.settings.database_url))) as connection:
            while not leaving.wait(0.1):
                with transaction(connection) as cursor:
                    found = rows(
                        cursor,
                        "SELECT count(DISTINCT application_name) AS n FROM pg_stat_activity"
                        " WHERE datname = current_database() AND application_name LIKE 'rowledger %'",
                    )
                most[0] = max(most[0], found[0]["n"] - 1)  # without this process

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        leaving.set()
        looking.join()


def _wrong(engine: Engine, last_word: dict[tuple[str, str], str]) -> list[str]:
    found = [f"{c['name']}: {c['violations']}" for c in ledger.check(engine.connection) if c["violations"]]
    ends = _query(
        engine, "SELECT domain_id, seqno, processed, processed_at FROM import_batch ORDER BY domain_id, seqno"
    )
    found += [f"import batch {one['seqno']} failed" for one in ends if not one["processed"]]
    for one, after in pairwise(ends):
        if one["domain_id"] == after["domain_id"] and one["processed_at"] > after["processed_at"]:
            found.append(f"import batch {after['seqno']} was done before {one['seqno']}")
    contacts = _query(
        engine, "SELECT code, external_id, last_name FROM contact JOIN domain USING (domain_id)"
    )
    if {(c["code"], c["external_id"]): c["last_name"] for c in contacts} != last_word:
        found.append("of some contact another batch than the last had the last word")
    return found


def main() -> int:
    """Drain as many as asked, and print how."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--per-run", type=int)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    done = run(asked.batches, asked.seed, asked.per_run)
    print(f"{done.batches} batches in {done.runs} runs, {done.seconds:.0f} s, {done.at_once} tasks at once at most,"
          f" {len(done.violations)} violations", *done.violations, sep="\n")  # fmt: skip
    return 1 if done.violations else 0


if __name__ == "__main__":
    sys.exit(main())
