"""Two live writers, and kills at random: a slice of what `make chaos` does."""

from __future__ import annotations

import random

import pytest

from faults import kills, writers
from faults.crowd import crowd
from faults.harness import Server
from faults.nursery import FENCED
from faults.scenarios import KILLED

SEED = 20261122

# After which commits of the first and the second try they stop: claimed, in the middle and at the end of the
# validation, cut into lanes, in the middle of the load, loaded, completing cells, closed.
PLACES = (1, 4, 6, 7, 10, 12, 15, 20, 25)


@pytest.mark.parametrize("number", range(8))
def test_of_two_tries_at_once_the_loser_writes_nothing_and_says_so(number: int, faulty: Server) -> None:
    draw = random.Random(f"{SEED} pair {number}")
    prepared = faulty.prepared(["contracts", "contract statuses"][number % 2])
    assert writers.two_tries(prepared, draw.choice(PLACES), draw.choice(PLACES)).violations == []


@pytest.mark.parametrize(
    "stop", [{"stop_after": 5}, {"stop_after": 11}, {"stop_inside": 17}, {"stop_inside": 70}]
)
def test_a_process_that_slept_longer_than_its_lease_writes_nothing_any_more(
    stop: dict[str, int], faulty: Server
) -> None:
    assert writers.outlived(faulty.prepared("contract statuses"), **stop).violations == []


@pytest.mark.parametrize("copy", ["ledger.copy_rejects", 'COPY "rowledger_staging', "ledger.copy_raw"])
def test_a_process_that_slept_in_the_middle_of_a_copy_is_told_that_its_batch_was_taken_over(
    copy: str, faulty: Server
) -> None:
    prepared = faulty.prepared("contacts")
    number = next(n for n, point in enumerate(prepared.points, 1) if f"COPY {copy}" in point.what)
    assert writers.outlived(prepared, [FENCED], stop_inside=number).violations == []


@pytest.mark.parametrize("number", range(4))
def test_a_batch_that_is_killed_at_random_ends_as_if_undisturbed(number: int, faulty: Server) -> None:
    prepared = faulty.prepared(list(KILLED)[number % 2])
    print(f"seed {SEED} kill {number}")
    assert kills.killed_at_random(prepared, random.Random(f"{SEED} kill {number}")).violations == []


def test_a_crowd_of_loaders_loses_nothing_and_meets_no_deadlock(faulty: Server) -> None:
    trial = crowd(faulty.prepared("a crowd of 12"))
    assert trial.violations == []
    assert trial.chunks >= 600
