"""Workers die and meet: whatever happens to the processes, a batch ends as if one had worked undisturbed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import (
    batches,
    db,
    ledger,
    loading,
    pipeline,
    reference,
    suites,
    templates,
    uploads,
    validation,
)
from rowledger.db import Connection
from rowledger.errors import Fenced, TryAgain
from rowledger.settings import Settings

ROOT = Path(__file__).parents[2]
Contents = Callable[[Connection], dict[str, list[Any]]]
_numbers = itertools.count(1)

# Importing Great Expectations takes longer than all the rest: one process does it and forks the command line, each
# time a process of its own. It reads {"argv", "env", "log"} and answers with a pid, or {"wait"} and answers with a code.
NURSERY = """
import json, os, sys
import rowledger.cli, rowledger.validation, rowledger.suites
rowledger.suites.warm()
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        out = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1), os.dup2(out, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(asked["env"])
        sys.argv = asked["argv"]
        try:
            rowledger.cli.main()
        except SystemExit as leaving:
            os._exit(leaving.code or 0)
        finally:
            os._exit(70)
    print(pid, flush=True)
"""


class Nursery:
    """Starts `rowledger` as processes of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()

    def _ask(self, question: dict[str, Any]) -> int:
        with self._lock:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def start(self, place: Place, *arguments: str) -> int:
        return self._ask({"argv": ["rowledger", *arguments], "env": place.environment, "log": str(place.log)})

    def wait(self, pid: int) -> int:
        return self._ask({"wait": pid})

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()


class Place:
    """A database with one waiting batch."""

    def __init__(self, url: str, connection: Connection, folder: Path, chunk: int) -> None:
        self.connection = connection
        self.log = folder / "log.txt"
        self.settings = Settings(folder, ROOT / "include" / "templates", url, chunk, chunk)
        self.environment = {
            "ROWLEDGER_DATABASE_URL": url, "ROWLEDGER_HOME": str(folder), "ROWLEDGER_VALIDATE_CHUNK": str(chunk),
            "ROWLEDGER_LOAD_CHUNK": str(chunk), "ROWLEDGER_TEMPLATES": str(self.settings.templates),
        }  # fmt: skip

    def submit(self, template: str, path: Path) -> int:
        chosen = templates.find_template(self.settings.templates, template, loading.kinds())
        upload = uploads.keep_file(path, self.settings.uploads)
        return batches.register(self.connection, upload, chosen, suites.suite_hash(chosen), "DEMO", by="tester",
                                through="command line", again=True, **self.extra(template))  # fmt: skip

    def extra(self, template: str) -> Any:
        return {"origins": ["WEB"], "subscriptions": ["NEWS"]} if template == "contacts" else {}

    def one(self, query: str) -> dict[str, Any]:
        with db.transaction(self.connection) as cursor:
            found = db.row(cursor, query)
        assert found is not None
        return found

    def ledger(self) -> list[Any]:
        return [
            [row["record_no"], row["outcome"], row["reasons"], row["warnings"], row["raw"]]
            for row in ledger.records(self.connection, 1)
        ]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with contextlib.closing(Nursery()) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def stocked(server: Any) -> Iterator[str]:
    """The name of a database with 700 contracts, to be copied."""
    _execute(server, "CREATE DATABASE stocked TEMPLATE migrated STRATEGY wal_log")
    contracts = [reference.Contract(form_id=f"C{n}", sign_up_date="2024-12-01") for n in range(700)]  # type: ignore[arg-type]
    domain = reference.Domain(code="DEMO", name="Demo", contracts=tuple(contracts))
    with contextlib.closing(db.connect(server.get_uri("stocked"))) as connection:
        reference.load(connection, reference.Reference(domains=(domain,)))
    yield "stocked"
    _execute(server, "DROP DATABASE stocked")


@pytest.fixture
def place(server: Any, stocked: str, tmp_path: Path) -> Iterator[Callable[[str, Path, int], Place]]:
    """Make a database with a batch of a template and a file, cut into chunks of a size."""
    with contextlib.ExitStack() as stack:

        def place(template: str, path: Path, chunk: int) -> Place:
            name = f"rerun_{next(_numbers)}"
            _execute(server, f"CREATE DATABASE {name} TEMPLATE {stocked} STRATEGY wal_log")
            stack.callback(_execute, server, f"DROP DATABASE {name} WITH (FORCE)")
            connection = stack.enter_context(contextlib.closing(db.connect(server.get_uri(name))))
            made = Place(server.get_uri(name), connection, tmp_path / name, chunk)
            assert made.submit(template, path) == 1
            return made

        yield place


def _execute(server: Any, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(server.get_uri("postgres"))) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


def statuses(path: Path, records: int) -> Path:
    """Statuses with everything that can become of one."""
    draw = random.Random(7)
    lines = []
    for number in range(records):
        form = f"C{draw.randrange(700)}" if draw.random() < 0.9 else f"X{number}"
        code = draw.choice(["10", "20", "20", "30", "30", "90", "77"])
        lines.append(
            f"{form};{draw.randint(1, 28):02}-{draw.randint(1, 3):02}-2025;{code};Agent;note {number}"
        )
        if draw.random() < 0.05:
            lines.append(draw.choice(["C1;31-02-2025;20;;", "C1;1", "", lines[-1], '"C1"x;;;;']))
    path.write_text("\n".join(lines) + "\n")
    return path


def contacts(path: Path, records: int) -> Path:
    """Contacts that repeat, agree and cross."""
    draw = random.Random(8)
    lines = ["Customer number,Email,Last name,Mobile,Country"]
    for number in range(records):
        key, other = draw.randrange(records), draw.randrange(records)
        email = f"e{key if draw.random() < 0.9 else other}@example.com" if draw.random() < 0.8 else ""
        mobile, country = draw.choice(["0171 123456", "12", ""]), draw.choice(["DE", "DE", "", "XX"])
        lines.append(f"K{key},{email},Name {number % 5},{mobile},{country}")
        if draw.random() < 0.05:
            lines.append(draw.choice(["K1", "", lines[-1], ",,Nobody,,", '"K1"x,,,,']))
    path.write_text("\n".join(lines) + "\n")
    return path


FILES = {"result_codes": statuses, "contacts": contacts}


@pytest.fixture
def undisturbed(
    place: Any, nursery: Nursery, contents: Contents
) -> Callable[[str, Path], tuple[Any, Any, Any]]:
    """What becomes of a file that one process works off whole: the ledger, the tables and the counts."""

    def undisturbed(template: str, path: Path) -> tuple[Any, Any, Any]:
        calm = place(template, path, 100_000)
        assert nursery.wait(nursery.start(calm, "work", "1")) == 0, calm.log.read_text()
        return ended(calm, contents)

    return undisturbed


def ended(place: Place, contents: Contents) -> tuple[Any, Any, Any]:
    batch = batches.get(place.connection, 1)
    assert batch.succeeded, (batch.error_message, place.log.read_text())
    assert [one for one in ledger.check(place.connection) if one["violations"]] == []
    return place.ledger(), contents(place.connection), (batch.counts, batch.warnings, batch.validated_records)


# Conditions on the batch's row and its ledger at which a worker is killed.
MOMENTS = [
    ("validate, before its first chunk", "status = 'in_progress' AND records_in_file > 0"),
    ("validate, early", "validated_records >= 300"),
    ("validate, in the middle", "validated_records >= 1500"),
    ("between validate and load", "validated_at IS NOT NULL"),
    ("load, early", "loaded_records >= 200"),
    ("load, in the middle", "loaded_records >= 1300"),
    ("load, late", "loaded_records >= 2000"),
    ("between load and close", "loaded_records > 0 AND loaded_records = staged_records"),
    ("close", "EXISTS (SELECT FROM import_record WHERE target_id IS NULL AND raw IS NOT NULL "
              "AND outcome = 'rejected' AND reasons->0->>'rule' IN ('unknown_contract', 'superseded_in_file'))"),
]  # fmt: skip


def kill_when(place: Place, nursery: Nursery, pid: int, condition: str) -> bool:
    """Kill a worker at a moment; False if it was done before that."""
    query = f"SELECT ({condition}) AS now, status = 'executed' AS done FROM import_batch WHERE seqno = 1"
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        found = place.one(query)
        if found["now"] or found["done"]:
            os.kill(pid, signal.SIGKILL)
            return nursery.wait(pid) == -signal.SIGKILL and not found["done"]
        time.sleep(0.001)
    raise AssertionError(f"{condition} never came: {place.log.read_text()}")


@pytest.mark.parametrize("template", FILES)
def test_a_batch_whose_workers_are_killed_again_and_again_ends_as_if_undisturbed(
    template: str, place: Any, nursery: Nursery, undisturbed: Any, contents: Contents, tmp_path: Path
) -> None:
    path = FILES[template](tmp_path / "file.csv", 3000)
    expected = undisturbed(template, path)
    torn = place(template, path, 150)
    killed = [
        name for name, moment in MOMENTS if kill_when(torn, nursery, nursery.start(torn, "work", "1"), moment)
    ]
    assert nursery.wait(nursery.start(torn, "work", "1")) == 0, torn.log.read_text()
    assert ended(torn, contents) == expected
    assert len(killed) >= 6, f"killed only in {killed}"


@pytest.mark.parametrize("round_", range(5))
def test_of_two_workers_at_one_batch_the_loser_stops_and_the_result_is_that_of_one(
    round_: int, place: Any, nursery: Nursery, undisturbed: Any, contents: Contents, tmp_path: Path
) -> None:
    template = list(FILES)[round_ % 2]
    path = FILES[template](tmp_path / "file.csv", 600)
    both = place(template, path, 100)
    first = nursery.start(both, "work", "1")
    time.sleep([0, 0.05, 0.3, 0.8, 1.5][round_])
    second = nursery.start(both, "work", "1")
    codes = [nursery.wait(first), nursery.wait(second)]
    said = both.log.read_text()
    assert 0 in codes, said
    assert set(codes) <= {0, 4}, said
    assert ("taken over by another worker" in said) == (4 in codes), said
    assert "Traceback" not in said
    assert ended(both, contents) == undisturbed(template, path)


def test_a_batch_that_is_done_stays_as_it_is(place: Any, nursery: Nursery, tmp_path: Path) -> None:
    done = place("result_codes", statuses(tmp_path / "file.csv", 300), 100)
    assert nursery.wait(nursery.start(done, "work", "1")) == 0

    def everything() -> dict[str, Any]:
        """Every row with the transaction that wrote it."""
        names = ["import_batch", "import_record", "import_batch_event", "contract", "status_history"]
        return {
            name: done.one(f"SELECT jsonb_agg(to_jsonb(t) || jsonb_build_object('xmin', xmin::text) ORDER BY t.ctid) AS all_rows "
                           f"FROM {name} AS t")
            for name in names
        }  # fmt: skip

    before = everything()
    assert nursery.wait(nursery.start(done, "work", "1")) == 0
    assert everything() == before


@pytest.fixture
def two_workers(place: Any, tmp_path: Path) -> Iterator[tuple[Place, pipeline.Worker, pipeline.Worker]]:
    made = place("result_codes", statuses(tmp_path / "file.csv", 600), 100)
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(contextlib.closing(db.connect(made.settings.database_url))) for _ in range(2)
        ]
        stale, fresh = (pipeline.Worker(connection, made.settings, "tester") for connection in connections)
        yield made, stale, fresh


def rows_of_ledger(place: Place) -> int:
    return int(place.one("SELECT count(*) AS n FROM import_record")["n"])


def test_a_worker_that_was_overtaken_while_validating_writes_nothing_more(
    two_workers: Any, undisturbed: Any, contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, stale, fresh = two_workers
    judge, judged = validation.Validation.judge, []

    def overtaken(self: Any, chunk: Any) -> Any:
        judged.append(chunk.first)
        if len(judged) == 3:
            fresh.claim(1, "validate")
        return judge(self, chunk)

    monkeypatch.setattr(validation.Validation, "judge", overtaken)
    with pytest.raises(Fenced, match="Import batch 1 was taken over"):
        pipeline.work(stale, 1)
    batch = batches.get(place.connection, 1)
    last = place.one("SELECT coalesce(max(record_no), 0) AS n FROM import_record")["n"]
    staged = place.one("SELECT count(*) AS n, max(record_no) AS last FROM rowledger_staging.batch_1")
    assert batch.validated_records < judged[2]
    assert max(last, staged["last"]) <= batch.validated_records
    assert staged["n"] + rows_of_ledger(place) == batch.validated_records
    assert batch.status == "in_progress"
    monkeypatch.undo()
    pipeline.work(replace(fresh, settings=place.settings), 1)
    assert ended(place, contents) == undisturbed("result_codes", tmp_path / "file.csv")


def both_at_once(monkeypatch: pytest.MonkeyPatch, then: Callable[..., Any]) -> None:
    """Let chunks run through ``then(load_chunk, worker, batch, template, lane)``, the first ones of two lanes together."""
    load_chunk, calls, first = pipeline._load_chunk, itertools.count(), threading.Barrier(2, timeout=30)

    def chunk(*arguments: Any) -> Any:
        if next(calls) < 2:
            first.wait()
        return then(load_chunk, *arguments)

    monkeypatch.setattr(pipeline, "_load_chunk", chunk)


def test_a_worker_that_was_overtaken_while_loading_writes_nothing_more(
    two_workers: Any, undisturbed: Any, contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, stale, fresh = two_workers
    lanes, left, one_by_one = [], [], threading.Lock()

    def overtaken(load_chunk: Any, *arguments: Any) -> Any:
        with one_by_one:
            lanes.append(arguments[-1].number)
            if len(lanes) == 4:
                fresh.claim(1, "load")  # waits for the chunk of the other lane
                left.append((rows_of_ledger(place), contents(place.connection)))
        return load_chunk(*arguments)

    both_at_once(monkeypatch, overtaken)
    with pytest.raises(Fenced):
        pipeline.work(stale, 1)
    assert [(rows_of_ledger(place), contents(place.connection))] == left
    assert sorted(lanes[:2]) == [1, 2]
    assert 0 < batches.get(place.connection, 1).loaded_records < 400
    monkeypatch.undo()
    pipeline.work(fresh, 1)
    assert ended(place, contents) == undisturbed("result_codes", tmp_path / "file.csv")


def raise_error(worker: pipeline.Worker) -> None:
    raise RuntimeError("broken")


def lose_connection(worker: pipeline.Worker) -> None:
    with db.transaction(worker.connection) as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize(
    ("breaks", "raised", "status"),
    [(raise_error, RuntimeError, "executed"), (lose_connection, TryAgain, "waiting")],
)
def test_an_error_in_one_lane_stops_the_other_and_leaves_no_connection_open(
    breaks: Any, raised: Any, status: str, two_workers: Any, undisturbed: Any, contents: Contents, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place, worker, _ = two_workers
    broken, seen = threading.Event(), []

    def chunk(load_chunk: Any, one: pipeline.Worker, *arguments: Any) -> Any:
        seen.append(arguments[-1].number)
        if seen[-1] == 2:
            try:
                breaks(one)
            finally:
                broken.set()
        broken.wait(30)
        time.sleep(0.3)  # until the error has come to whoever waits for the lanes
        return load_chunk(one, *arguments)

    both_at_once(monkeypatch, chunk)
    with pytest.raises(raised):
        pipeline.work(worker, 1)
    assert sorted(seen) == [1, 2]
    batch = batches.get(place.connection, 1)
    assert batch.status == status
    assert 0 < batch.loaded_records < batch.staged_records
    connections = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
    assert place.one(connections)["n"] == 3
    monkeypatch.undo()
    pipeline.work(worker, 1)
    assert ended(place, contents) == undisturbed("result_codes", tmp_path / "file.csv")


def test_lanes_merge_at_the_same_time(two_workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, worker, _ = two_workers
    merge, calls, first = loading.merge, itertools.count(), threading.Barrier(2, timeout=30)

    def together(*arguments: Any) -> Any:
        outcomes = merge(*arguments)
        if next(calls) < 2:
            first.wait()  # in two transactions at once, or never
        return outcomes

    monkeypatch.setattr(loading, "merge", together)
    assert pipeline.work(worker, 1).succeeded


@pytest.mark.parametrize("template", FILES)
def test_batches_of_one_kind_and_domain_load_chunk_by_chunk_in_turns(
    template: str,
    place: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = FILES[template](tmp_path / "file.csv", 600)
    backwards = tmp_path / "backwards.csv"
    header, lines = ([], path.read_text().splitlines())
    if template == "contacts":
        header, lines = lines[:1], lines[1:]
    backwards.write_text("\n".join([*header, *reversed(lines)]).replace("Name 1", "Name 7") + "\n")
    made = place(template, path, 60)
    assert made.submit(template, backwards) == 2
    merge, lock, at_work, most = loading.merge, threading.Lock(), [], []

    def watched(cursor: Any, batch: Any, *arguments: Any) -> Any:
        with lock:
            at_work.append(batch.seqno)
            most.append((len(set(at_work)), batch.seqno))
        try:
            return merge(cursor, batch, *arguments)
        finally:
            with lock:
                at_work.remove(batch.seqno)

    monkeypatch.setattr(loading, "merge", watched)

    def work(seqno: int) -> Any:
        with contextlib.closing(db.connect(made.settings.database_url)) as connection:
            worker = pipeline.Worker(connection, made.settings, "tester")
            pipeline.validate(worker, seqno)
            validated.wait()
            return pipeline.work(worker, seqno)

    validated = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(work, (1, 2)))
    assert [batch.succeeded for batch in done] == [True, True]
    assert {count for count, _ in most} == {1}, "chunks of two batches ran at once"
    assert len(list(itertools.groupby(seqno for _, seqno in most))) > 3, (
        "one batch waited for all of the other"
    )
    assert not [line for line in caplog.messages if "Trying again" in line]
    assert [one for one in ledger.check(made.connection) if one["violations"]] == []


def test_a_worker_that_was_overtaken_before_its_close_closes_nothing(two_workers: Any) -> None:
    place, stale, fresh = two_workers
    pipeline.validate(stale, 1)
    pipeline.load(stale, 1)
    held = stale.claim(1, "close")
    fresh.claim(1, "close")
    with pytest.raises(Fenced):
        pipeline._finish(stale, held)
    assert batches.get(place.connection, 1).status == "in_progress"
    assert pipeline.close(fresh, 1).succeeded
