"""What has piled up is taken on in the order of upload, by each run as much as it may, never twice."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rowledger import batches, db, ledger, loading, pipeline, reference, templates, uploads
from rowledger.db import Connection, rows, transaction
from rowledger.settings import Settings
from rowledger.suites import suite_hash

Submit = Callable[..., int]
DOMAINS = ("NORTH", "SOUTH", "WEST")
WAITING, LIMIT, LEASE = 500, 100, 60


@pytest.fixture
def waiting(connection: Connection, settings: Settings, tmp_path: Any) -> list[int]:
    """Five hundred batches of three domains in turn."""
    domains = tuple(reference.Domain(code=code, name=code.title()) for code in DOMAINS)
    reference.load(connection, reference.Reference(domains=domains))
    template = templates.find_template(settings.templates, "contacts", loading.kinds())
    file = tmp_path / "file.csv"
    file.write_text("Customer number,Email\nC1,\n")
    upload = uploads.keep_file(file, settings.uploads)
    digest = suite_hash(template)
    return [
        batches.register(connection, upload, template, digest, domain, by="tester", through="api", again=True)
        for domain in itertools.islice(itertools.cycle(DOMAINS), WAITING)
    ]


def reserve(connection: Connection, run: str, limit: int = LIMIT) -> list[int]:
    return batches.reserve(connection, "contact", run, limit, LEASE)


def end(connection: Connection, seqnos: list[int]) -> None:
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET status = 'cancelled', leased_until = NULL WHERE seqno = ANY(%(seqnos)s)",
            {"seqnos": seqnos},
        )


def test_runs_take_on_the_oldest_first_until_nothing_waits(
    connection: Connection, waiting: list[int]
) -> None:
    taken = []
    for number in range(WAITING // LIMIT):
        mine = reserve(connection, f"run {number}")
        assert mine == waiting[number * LIMIT : (number + 1) * LIMIT]
        taken += mine
        end(connection, mine)
    assert taken == waiting
    assert reserve(connection, "one more") == []


def test_by_default_one_run_takes_on_all_of_them(
    connection: Connection, waiting: list[int], settings: Settings
) -> None:
    assert reserve(connection, "run", settings.batches_per_run) == waiting


def test_runs_at_the_same_moment_share_the_oldest_and_never_one_of_them(
    connection: Connection, waiting: list[int], database_url: str
) -> None:
    def run(number: int) -> list[int]:
        with contextlib.closing(db.connect(database_url)) as own:
            return reserve(own, f"run {number}", 40)

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(run, range(8)))
    assert sorted(itertools.chain(*shares)) == waiting[: 8 * 40]
    assert all(share == sorted(share) for share in shares)


def test_a_run_that_is_cleared_never_has_more_than_the_limit(
    connection: Connection, waiting: list[int]
) -> None:
    mine = reserve(connection, "run")
    end(connection, mine[:30])
    assert reserve(connection, "run") == mine  # the thirty in their places, and none in their stead
    end(connection, mine[30:])
    assert reserve(connection, "run") == mine


def test_in_a_run_every_batch_waits_for_the_one_before_it_of_its_domain(
    connection: Connection, waiting: list[int]
) -> None:
    mine = reserve(connection, "run", 30)
    ahead = [batches.ahead(connection, batches.get(connection, seqno), LEASE) for seqno in mine]
    assert ahead == [None] * 3 + [mine[place % 3] for place in range(3, 30)]


def test_of_what_two_batches_say_the_later_has_the_last_word_whoever_is_quicker(
    connection: Connection, settings: Settings, submit: Submit, database_url: str
) -> None:
    """Four tasks at work at once, validated in any order, loaded in turn, as the task ``load`` does."""
    seqnos = [submit(f"Customer number,Last name\nC1,Name {n}\nC{n},Own\n") for n in range(2, 22)]
    reserve(connection, "run")

    def work(seqno: int) -> int:
        with contextlib.closing(db.connect(database_url)) as own:
            worker = pipeline.Worker(own, settings, "tester", "run")
            pipeline.validate(worker, seqno)
            while batches.ahead(own, batches.get(own, seqno), LEASE) is not None:
                time.sleep(0.05)
            pipeline.load(worker, seqno)
            return pipeline.close(worker, seqno).seqno

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, seqnos)) == seqnos
    with transaction(connection) as cursor:
        ends = rows(cursor, "SELECT seqno, processed FROM import_batch ORDER BY processed_at")
        first = rows(cursor, "SELECT last_name FROM contact WHERE external_id = 'C1'")
    assert [one["seqno"] for one in ends] == seqnos
    assert [one["last_name"] for one in first] == ["Name 21"]
    assert [check for check in ledger.check(connection) if check["violations"]] == []
