"""A crowd: two schedulers on one database, each with four loaders, over files that name the same keys in opposite orders.

What must come of it is told by the files alone, whichever loader was quicker: each contract has been given one status a
batch, and of each contact every batch has written one field, over what the batch before it had written.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from faults.harness import Life, Prepared, Trial, broken_checks
from faults.scenarios import KEYS, crowd_code, crowd_day
from rowledger import batches, db

LOADERS = 4
KINDS = ("contact", "contract_status")


def crowd(prepared: Prepared) -> Trial:
    """Let the crowd work off all that waits."""
    began, trial = time.monotonic(), Trial()
    with prepared.server.copy(prepared.database(0)) as name:
        life = Life(prepared, name)
        with ThreadPoolExecutor(2) as schedulers:
            rounds = [
                schedulers.submit(_schedule, prepared, life, name, f"scheduler {one}") for one in (1, 2)
            ]
        taken = [seqno for one in rounds for seqno in one.result()[0]]
        codes = Counter(code for one in rounds for code in one.result()[1])
        with contextlib.closing(db.connect(prepared.server.url(name))) as connection:
            trial.violations += [f"workers ended with {dict(codes)}"] if set(codes) != {0} else []
            trial.violations += [
                f"taken more than once: {seqno}" for seqno, n in Counter(taken).items() if n > 1
            ]
            trial.violations += _wrong(connection) + broken_checks(connection)
        if "Trying again" in life.log():
            trial.violations.append("a chunk had to be tried again")
        if trial.violations:
            trial.violations.append(life.said())
        trial.chunks = life.log().count("more records loaded")
    trial.lives, trial.seconds = codes.total(), time.monotonic() - began
    return trial


def _schedule(prepared: Prepared, life: Life, name: str, who: str) -> tuple[list[int], list[int]]:
    """Reserve batches and let four loaders work them off, until none is left; the batches, and how the loaders ended."""
    taken: list[int] = []
    codes: list[int] = []
    with (
        contextlib.closing(db.connect(prepared.server.url(name))) as connection,
        ThreadPoolExecutor(LOADERS) as loaders,
    ):
        for turn in range(1000):
            found = [
                seqno
                for kind in KINDS
                for seqno in batches.reserve(connection, kind, f"{who} {turn}", LOADERS // 2, 300)
            ]
            if not found:
                break
            taken += found
            codes += loaders.map(lambda seqno: life.run(0, last=3, seqno=seqno), found)
    return taken, codes


def _wrong(connection: db.Connection) -> list[str]:
    with db.transaction(connection) as cursor:
        stuck = db.rows(cursor, "SELECT seqno FROM import_batch WHERE NOT processed")
        deadlocks = db.row(
            cursor, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        seqnos = [r["seqno"] for r in db.rows(cursor, "SELECT seqno FROM import_batch ORDER BY seqno")]
        found = [f"batch {batch['seqno']} is not processed" for batch in stuck]
        if deadlocks and deadlocks["deadlocks"]:
            found.append(f"{deadlocks['deadlocks']} deadlocks")
        found += _wrong_histories(db.rows(cursor, _HISTORIES), [n for n in seqnos if n % 2])
        return found + _lost_updates(db.rows(cursor, _UPDATES), [n for n in seqnos if n % 2 == 0])


_HISTORIES = """
    SELECT form_id, now.code AS current, array_agg(h.date_result || ' ' || given.code ORDER BY h.date_result) AS history
    FROM contract
    JOIN contract_status AS now USING (status_id)
    JOIN status_history AS h ON h.contract_id = contract.contract_id AND cause = 'import'
    JOIN contract_status AS given ON given.status_id = h.status_id
    GROUP BY form_id, now.code"""

_UPDATES = """
    SELECT external_id, last_name, r.seqno, r.before ->> 'last_name' AS before
    FROM contact JOIN import_record AS r ON target_id = contact_id JOIN import_batch USING (seqno)
    WHERE kind = 'contact' AND outcome IN ('created', 'updated')"""


def _wrong_histories(rows: list[dict[str, Any]], seqnos: list[int]) -> list[str]:
    found = [] if len(rows) == KEYS else [f"{len(rows)} contracts of {KEYS} have a history"]
    for row in rows:
        key = int(row["form_id"][1:])
        expected = [f"{crowd_day(number)} {crowd_code(number, key)}" for number in seqnos]
        if row["history"] != expected or row["current"] != crowd_code(seqnos[-1], key):
            found.append(f"history of {row['form_id']}: {row['current']}, {row['history']}")
    return found


def _lost_updates(rows: list[dict[str, Any]], seqnos: list[int]) -> list[str]:
    """Every batch has written every contact, each over what another had written, and the last one is what is there."""
    found = []
    contacts = defaultdict(list)
    for row in rows:
        contacts[row["external_id"]].append(row)
    for contact, updates in contacts.items():
        written = {f"Batch {row['seqno']}" for row in updates}
        overwritten = {row["before"] for row in updates} - {None}
        if len(updates) != len(seqnos) or written - overwritten != {updates[0]["last_name"]}:
            found.append(f"contact {contact}: {sorted(written - overwritten)} were lost")
    return found + ([] if len(contacts) == KEYS else [f"{len(contacts)} contacts of {KEYS}"])
