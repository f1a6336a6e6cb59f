"""A slice of the enumeration: whatever breaks at whichever point, the work is tried again and ends as if undisturbed.

`make chaos` does all of it; each run here does the same part, every kind of fault in every scenario and step.
"""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict

import pytest

from faults import injection
from faults.harness import Point, Prepared, Server, Trial
from faults.scenarios import ENUMERATED
from rowledger import db

SEED = 20261122


BASIC = ("contract statuses", "contacts", "contracts")


def chosen(prepared: Prepared) -> list[tuple[Point, str]]:
    """Points to break: one of each step, of the long ones more; and every kind of fault as often as the others."""
    draw, used = random.Random(f"{SEED} {prepared.scenario}"), defaultdict[str, int](int)
    found = []
    for place in range(len(prepared.steps)):
        points = [point for point in prepared.points if point.step == place]
        for point in draw.sample(points, 1 + len(points) // (20 if prepared.scenario in BASIC else 60)):
            kind = min(point.kinds, key=lambda kind: (used[kind], draw.random()))
            used[kind] += 1
            found.append((point, kind))
    return found


@pytest.mark.parametrize("scenario", ENUMERATED)
def test_a_fault_at_any_point_leaves_no_trace(scenario: str, faulty: Server) -> None:
    prepared = faulty.prepared(scenario)
    for point, kind in chosen(prepared):
        trial = prepared.trial(point.step, (point.number, kind))
        assert [struck for struck, _ in trial.struck] == [kind], f"{kind} did not strike at {point}"
        assert trial.violations == [], f"{kind} at {point}"


@pytest.mark.parametrize("kind", injection.KINDS)
def test_a_fault_at_a_commit_of_each_sort_leaves_no_trace(kind: str, faulty: Server) -> None:
    """Where the lanes are cut, and where the first chunk is loaded."""
    prepared = faulty.prepared("contacts")
    commits = [point for point in prepared.points if point.step == 1 and point.what == "COMMIT"]
    for point in commits[2:4]:
        assert prepared.trial(1, (point.number, kind)).violations == [], point


@pytest.mark.parametrize("number", range(6))
def test_a_second_fault_while_trying_again_leaves_no_trace(number: int, faulty: Server) -> None:
    draw = random.Random(f"{SEED} double {number}")
    prepared = faulty.prepared(
        ["contacts", "contract statuses", "paused while loading", "a batch opened again"][number % 4]
    )
    point = draw.choice([point for point in prepared.points if point.step > 0])
    trial = prepared.trial(
        point.step,
        (point.number, injection.KINDS[number]),
        (draw.randint(1, 12), draw.choice(injection.KINDS)),
    )
    assert trial.violations == []


def test_every_statement_and_commit_is_a_point(faulty: Server) -> None:
    """What the transactions of each step are made of, as a claim, a chunk and a close do it."""
    whats = [
        [point.what for point in faulty.prepared("contacts").points if point.step == place]
        for place in range(3)
    ]
    assert [what.split("(")[0] for what in whats[0][:2]] == ["SELECT set_config", "COMMIT"]  # connect
    assert whats[0][2:12] == [
        "batches.end_silent", "batches.look_again", "SAVEPOINT part", "batches.impatience", "batches.fence",
        "RELEASE SAVEPOINT part", "batches.no_impatience", "batches.fence", "batches.lock", "batches.claim",
    ]  # fmt: skip
    assert whats[0].index("COMMIT", 2) == 13  # after the batch is read once more
    for step, ones in enumerate([["COPY ledger.copy_rejects", "batches.mark_validated"],
                                 ["contact.merge", "loading.reject_key", "lanes.mark", "batches.count_loaded"],
                                 ["ledger.add_raw", "batches.finish", "batches.event"]]):  # fmt: skip
        assert set(ones) <= set(whats[step])


def test_the_harness_sees_what_is_wrong(faulty: Server) -> None:
    """A trial whose database is spoiled behind its back has violations: of the checks, and by comparison."""
    prepared = faulty.prepared("contacts")
    with faulty.copy(prepared.database(3)) as name:
        assert prepared.verdict(name) == []
        spoil(
            faulty,
            name,
            "UPDATE rowledger.contact SET company = 'X' WHERE contact_id = (SELECT min(contact_id) FROM rowledger.contact)",
        )
        assert [one.split(":")[0] for one in prepared.verdict(name)] == ["contact", "contact"]
        spoil(faulty, name, "DELETE FROM rowledger.import_record WHERE seqno = 2 AND record_no = 3")
        assert {"check conservation", "import_record"} <= {
            one.split(":")[0] for one in prepared.verdict(name)
        }


def spoil(server: Server, name: str, statement: str) -> None:
    with contextlib.closing(db.connect(server.url(name))) as connection, db.transaction(connection) as cursor:
        cursor.execute(statement)


def test_a_trial_without_a_fault_takes_one_process(faulty: Server) -> None:
    assert faulty.prepared("contracts").trial(1) == Trial(lives=1, seconds=pytest.approx(1, abs=60))
