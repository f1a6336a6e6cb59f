"""A batch is rolled back: what it changed is as before, what others changed since is spared and listed (docs/rules.md)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from rowledger import (
    batches,
    contacts,
    contracts,
    control,
    db,
    ledger,
    loading,
    parked,
    pipeline,
    reference,
    replay,
    roll_back,
    suites,
    templates,
    timers,
    uploads,
)
from rowledger.db import Connection
from rowledger.errors import (
    DuplicateUpload,
    Fenced,
    FileError,
    NotPossible,
    RecordRefused,
    SetupError,
    Stopped,
    TryAgain,
    UnknownCode,
)
from rowledger.model import Batch
from rowledger.roll_back import RollBack
from rowledger.settings import Settings

WHOLE = 10**6
_numbers = itertools.count(1)

CONTACTS = """\
kind: contact
title: Contacts
file: {header: false}
columns:
  - {field: external_id, position: 1, title: Number, type: code}
  - {field: email, position: 2, title: E-mail, type: email}
  - {field: last_name, position: 3, title: Name, clear: "-"}
  - {field: city, position: 4, title: City, on_update: fill_if_empty}
  - {field: birth_date, position: 5, title: Born, type: date, format: YYYY-MM-DD}
  - {field: roles, position: 6, title: Roles, type: list, separator: "|", on_update: add, clear: "-"}
  - {field: lead, position: 7, title: Lead, type: boolean, words: {"true": ["yes"], "false": ["no"]}, clear: "-"}
  - {field: attributes.card, position: 8, title: Card, type: number, clear: "-"}
  - {field: attributes.tags, position: 9, title: Tags, type: list, separator: "|", clear: "-"}
  - {field: origins, position: 10, title: Origins, type: list, separator: "|"}
  - {field: subscriptions, position: 11, title: Lists, type: list, separator: "|"}
  - {field: opt_outs, position: 12, title: Out, type: list, separator: "|"}
"""
STATUSES = """\
kind: contract_status
title: Statuses
file: {delimiter: ",", header: false, fields: 3}
columns:
  - {field: form_id, position: 1, title: Form ID, required: true, type: code}
  - {field: date_result, position: 2, title: Date Result, required: true, type: date, format: YYYY-MM-DD}
  - {field: result_code, position: 3, title: Result code, required: true, type: code}
policies: {unknown_contract: park, unknown_status: park}
"""
CONTRACTS = """\
kind: contract
title: Contracts
file: {delimiter: ",", header: false, fields: 3}
columns:
  - {field: form_id, position: 1, title: Form ID, required: true, type: code}
  - {field: sign_up_date, position: 2, title: Signed, required: true, type: date, format: YYYY-MM-DD}
  - {field: contact, position: 3, title: Customer, clear: "-"}
policies: {unknown_contact: ignore}
"""
TEMPLATES = {
    "contacts": CONTACTS,
    "contacts_by_email": CONTACTS + "policies: {match: [email]}\n",
    "statuses": STATUSES,
    "contracts": CONTRACTS,
}
KINDS = ("contacts", "statuses", "contracts")

# What a file changes, without ids, times and what is withdrawn.
STATE = {
    "contacts": """
        SELECT to_jsonb(c) - '{contact_id,domain_id,created_at,updated_at}'::text[] AS fields,
               ARRAY(SELECT (code, seqno, record_no)::text FROM contact_origin JOIN origin USING (origin_id)
                     WHERE contact_id = c.contact_id ORDER BY entry_id) AS origins,
               ARRAY(SELECT (list_id, opted_in)::text FROM contact_subscription JOIN subscription USING (subscription_id)
                     WHERE contact_id = c.contact_id ORDER BY list_id) AS subscriptions,
               ARRAY(SELECT (list_id, opted_in, seqno, record_no)::text
                     FROM subscription_history JOIN subscription USING (subscription_id)
                     WHERE contact_id = c.contact_id AND withdrawn_at IS NULL ORDER BY history_id) AS history
        FROM contact AS c ORDER BY external_id, email""",
    "contracts": """
        SELECT form_id, sign_up_date::text, contact.external_id, code, date_result::text, seqno, record_no,
               ARRAY(SELECT (code, date_result, cause, seqno, record_no)::text
                     FROM status_history JOIN contract_status USING (status_id)
                     WHERE contract_id = contract.contract_id AND withdrawn_at IS NULL
                     ORDER BY date_result, seqno NULLS FIRST, record_no) AS history
        FROM contract LEFT JOIN contract_status USING (status_id) LEFT JOIN contact USING (contact_id)
        ORDER BY form_id""",
}  # fmt: skip
# The same, and all that roll backs did.
EVERYTHING = STATE | {
    "withdrawn": """
        SELECT 'status' AS sort, seqno, record_no, withdrawn_at IS NOT NULL AS withdrawn
        FROM status_history WHERE seqno IS NOT NULL
        UNION ALL
        SELECT list_id, seqno, record_no, withdrawn_at IS NOT NULL
        FROM subscription_history JOIN subscription USING (subscription_id) WHERE seqno IS NOT NULL
        ORDER BY seqno, record_no, sort""",
    "roll_backs": "SELECT seqno, why, mark, restored, spared, finished_at IS NOT NULL AS finished FROM import_batch_roll_back ORDER BY seqno",
    "records": r"""
        SELECT seqno, record_no, about, result, reason, later_seqno, later_record_no, detail,
               regexp_replace(removed::text, '"\w+_at": "[^"]*"', '', 'g') AS removed
        FROM roll_back_record ORDER BY seqno, record_no""",
    "ledger": "SELECT seqno, record_no, outcome, before, reasons, warnings FROM import_record ORDER BY seqno, record_no",
    "parked": "SELECT seqno, record_no, outcome FROM parked_record ORDER BY seqno, record_no",
    "events": "SELECT seqno, event, by, detail FROM import_batch_event ORDER BY event_id",
}  # fmt: skip


class World:
    """A database, and a person who imports files into it and takes them back."""

    def __init__(self, name: str, connection: Connection, settings: Settings, folder: Path) -> None:
        self.name, self.connection, self.settings, self.folder = name, connection, settings, folder

    @property
    def worker(self) -> pipeline.Worker:
        return pipeline.Worker(self.connection, self.settings, "worker")

    def submit(self, template: str, content: str, **options: Any) -> int:
        path = self.folder / f"file_{next(_numbers)}.csv"
        path.write_text(content)
        upload = uploads.keep_file(path, self.settings.uploads)
        chosen = _template(template)
        asked = {"by": "tester", "through": "command line", "again": True} | options
        return batches.register(self.connection, upload, chosen, suites.suite_hash(chosen), "DEMO", **asked)

    def load(self, template: str, content: str, **options: Any) -> int:
        """Import a file; a wrong one leaves a failed batch."""
        seqno = self.submit(template, content, **options)
        with contextlib.suppress(FileError):
            pipeline.work(self.worker, seqno)
        return seqno

    def roll_back(self, seqno: int) -> RollBack:
        roll_back.ask(self.connection, seqno, by="Ada", why="the wrong file")
        return roll_back.work(self.worker, seqno)

    def rows(self, query: str, **values: Any) -> list[list[Any]]:
        with db.transaction(self.connection) as cursor:
            return [list(row.values()) for row in db.rows(cursor, query, values)]

    def run(self, statement: str) -> None:
        with db.transaction(self.connection) as cursor:
            cursor.execute(statement)

    def state(self) -> dict[str, list[Any]]:
        return {name: self.rows(query) for name, query in STATE.items()}

    def everything(self) -> dict[str, list[Any]]:
        return {name: self.rows(query) for name, query in EVERYTHING.items()}

    def told(self, seqno: int) -> list[tuple[Any, ...]]:
        """What the roll back of a batch did: record number, what it is about, and why it was spared if it was."""
        return [
            (r["record_no"], r["rolled_back"]["about"], *([_why(r)] if r["rolled_back"]["reason"] else []))
            for r in ledger.records(self.connection, seqno)
            if r["rolled_back"]
        ]

    def became(self, seqno: int) -> list[tuple[Any, ...]]:
        return [
            (r["record_no"], r["outcome"], *(reason["rule"] for reason in r["reasons"] or ()))
            for r in ledger.records(self.connection, seqno)
        ]

    def sound(self) -> None:
        assert [one for one in ledger.check(self.connection) if one["violations"]] == []


def _why(record: dict[str, Any]) -> str:
    return roll_back.why_spared(record["rolled_back"])


@functools.cache
def _template(name: str) -> templates.ImportTemplate:
    return templates.parse_template(TEMPLATES[name], name, loading.kinds(), name)


@pytest.fixture(scope="module")
def stocked(server: Any) -> Iterator[str]:
    """The name of a database with six contracts and four contacts, to be copied."""
    _execute(server, "CREATE DATABASE roll_back_stock TEMPLATE migrated STRATEGY wal_log")
    with contextlib.closing(db.connect(server.get_uri("roll_back_stock"))) as connection:
        forms = tuple(reference.Contract(form_id=f"F{n}", sign_up_date="2025-01-01") for n in range(4, 7))  # type: ignore[arg-type]
        reference.load(
            connection,
            reference.Reference(domains=(reference.Domain(code="DEMO", name="Demo", contracts=forms),)),
        )
    yield "roll_back_stock"
    _execute(server, "DROP DATABASE roll_back_stock WITH (FORCE)")


@pytest.fixture
def fresh(
    server: Any, stocked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """Makes a world; ``of`` another one, in the state of that."""
    judge = functools.cache(suites.judge)
    monkeypatch.setattr(suites, "judge", lambda template: judge(template))
    monkeypatch.setattr(pipeline, "template_of", lambda connection, batch: _template(batch.template))
    with contextlib.ExitStack() as stack:

        def fresh(of: World | None = None, **settings: Any) -> World:
            name = f"rolled_{next(_numbers)}"
            if of:
                of.connection.close()  # a database can be copied while nobody uses it
            source = of.name if of else stocked
            _execute(server, f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY wal_log")
            stack.callback(_execute, server, f"DROP DATABASE {name} WITH (FORCE)")
            url = server.get_uri(name)
            connection = stack.enter_context(contextlib.closing(db.connect(url)))
            folder = tmp_path / name
            folder.mkdir()
            made = replace(Settings(of.settings.home if of else folder, tmp_path, url), **settings)
            return World(name, connection, made, folder)

        yield fresh


@pytest.fixture
def world(fresh: Callable[..., World]) -> World:
    return fresh()


def _execute(server: Any, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(server.get_uri("postgres"))) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


# Files -----------------------------------------------------------------------------------------------------------


def contact_lines(draw: random.Random, size: int) -> list[str]:
    """Contacts in few keys, with all that a contact can have; some wrong."""
    cells = (["", "Ash", "Birch", "-"], ["", "Ulm", "Jena"], ["", "", "1980-02-01", "1990-03-02"], ["", "a", "b|a", "-"],
             ["", "yes", "no", "-"], ["", "1", "2.50", "-", "wrong"], ["", "red", "red|blue", "-"], ["", "WEB", "FAIR|WEB"],
             ["", "NEWS", "OFFERS|NEWS"], ["", "", "NEWS", "GONE"])  # fmt: skip
    lines = []
    for _ in range(size):
        number = draw.randint(1, 6)
        email = draw.choice(
            ["", f"e{number}@example.com", f"E{number}@Example.com", f"new{draw.randint(1, 9)}@example.com"]
        )
        lines.append(",".join([draw.choice([f"K{number}"] * 4 + [""]), email, *map(draw.choice, cells)]))
    return lines


def status_lines(draw: random.Random, size: int) -> list[str]:
    """Statuses early and late, definitive ones, repeats, of contracts and codes that do not exist."""
    forms = [f"F{n}" for n in range(1, 7)] + ["N1", "N2", "X9"]
    return [
        f"{draw.choice(forms)},2026-0{draw.randint(1, 4)}-01,{draw.choice(['10', '20', '30', '20', '30', '90', '77'])}"
        for _ in range(size)
    ]


def contract_lines(draw: random.Random, size: int) -> list[str]:
    """Contracts old and new, of contacts that exist or not."""
    forms = ["F1", "F2", "F4", "N1", "N2", "N3"]
    return [
        f"{draw.choice(forms)},202{draw.randint(4, 5)}-12-01,{draw.choice(['', '-', 'K1', 'K2', 'K3', 'K9'])}"
        for _ in range(size)
    ]


LINES = {"contacts": contact_lines, "statuses": status_lines, "contracts": contract_lines}


def drawn(draw: random.Random, template: str) -> tuple[str, str, dict[str, Any]]:
    """A file: its template, its content, what was named at upload."""
    content = "\n".join(LINES[template](draw, draw.randint(1, 14))) + "\n"
    options: dict[str, Any] = {}
    if template == "contacts" and draw.random() < 0.4:
        template = draw.choice(["contacts", "contacts_by_email"])
        options = {"origins": draw.choice([["WEB"], []]), "subscriptions": draw.choice([["OFFERS"], []])}
    return template, content, options


def load_drawn(world: World, draw: random.Random, template: str) -> int:
    name, content, options = drawn(draw, template)
    return world.load(name, content, **options)


# Properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(7))
def test_batches_that_are_rolled_back_in_reverse_leave_the_database_as_it_was_before_each(
    world: World, seed: int
) -> None:
    draw = random.Random(seed)
    world.settings = replace(
        world.settings, load_chunk=draw.choice([1, 3, WHOLE]), load_lanes=draw.choice([1, 2])
    )
    states, seqnos, restored = [], [], 0
    for _ in range(7):
        states.append(world.state())
        seqnos.append(load_drawn(world, draw, draw.choice(KINDS)))
    for seqno, before in zip(reversed(seqnos), reversed(states), strict=True):
        done = world.roll_back(seqno)
        assert (world.state(), done.spared) == (before, 0), f"batch {seqno}"
        restored += done.restored
        world.sound()
    assert restored > 10  # else this would be about nothing


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("template", KINDS)
def test_what_a_later_batch_changed_or_confirmed_is_spared_and_listed_and_all_else_restored(
    world: World, template: str, seed: int
) -> None:
    draw = random.Random(f"{template} {seed}")
    load_drawn(world, draw, "contacts")
    load_drawn(world, draw, template)
    before = world.state()[_table(template)]
    first = load_drawn(world, draw, template)
    between = world.state()[_table(template)]
    second = load_drawn(world, draw, template)
    after = world.state()[_table(template)]
    changed = {target: no for no, target in _effects(world, first)}
    later = {target for _, target in _effects(world, second, "'unchanged'")}
    done = world.roll_back(first)
    told = world.told(first)
    assert {no for no, _, *why in told if why} == {
        no for no, target in _effects(world, first) if target in later
    }
    assert {no for no, *_ in told} == {no for no, _ in _effects(world, first)}
    assert all(f"Import batch {second}, record " in why[0] for _, _, *why in told if why)
    assert (done.restored, done.spared) == (
        len([None for _, _, *why in told if not why]),
        len([None for _, _, *why in told if why]),
    )
    now = {_key(row): row for row in world.state()[_table(template)]}
    names = _names(world, template)
    for target in changed:
        source = after if target in later else before
        key = names.get(target)
        wanted = [row for row in source if _key(row) == key] if key else []
        assert [now[key]] == wanted if key in now else wanted == [], (target, key, between)
    world.sound()


def _table(template: str) -> str:
    return "contacts" if template == "contacts" else "contracts"


def _key(row: list[Any]) -> str:
    """A contract by its form id, a contact by what no batch changes: its number, else its email."""
    return row[0] if isinstance(row[0], str) else row[0]["external_id"] or row[0]["email"]


def _names(world: World, template: str) -> dict[int, str]:
    query = "SELECT contact_id, coalesce(external_id, email) FROM contact"
    if template != "contacts":
        query = "SELECT contract_id, form_id FROM contract"
    return {row[0]: row[1] for row in world.rows(query)}


def _effects(world: World, seqno: int, also: str = "'created'") -> list[tuple[int, int]]:
    query = f"""SELECT record_no, target_id FROM import_record
                WHERE seqno = {seqno} AND outcome IN ('created', 'updated', 'historic', {also}) ORDER BY record_no"""
    return [(row[0], row[1]) for row in world.rows(query)]


@pytest.mark.parametrize("seed", range(5))
def test_roll_backs_in_any_order_end_the_same_however_they_are_cut_and_as_their_dry_runs_said(
    fresh: Callable[..., World], seed: int
) -> None:
    draw = random.Random(seed)
    world = fresh()
    seqnos = [load_drawn(world, draw, draw.choice(KINDS)) for _ in range(6)]
    world.load("contracts", "X9,2025-12-01,K1\n")
    replay.replay(world.worker)
    order = draw.sample(seqnos, 5)
    twins = [fresh(world, load_chunk=size) for size in (1, 3, WHOLE)]
    for seqno in order:
        planned = [
            [[p["record_no"], p["result"], p["reason"], timeless(p["removed"])] for p in roll_back.planned(twin.connection, seqno)]
            for twin in twins
        ]  # fmt: skip
        assert planned[0] == planned[1] == planned[2]
        for twin in twins:
            twin.roll_back(seqno)
            twin.sound()
            query = f"SELECT record_no, result, reason, removed FROM roll_back_record WHERE seqno = {seqno} ORDER BY 1"
            assert [[*row[:3], timeless(row[3])] for row in twin.rows(query)] == planned[0]
    assert twins[0].everything() == twins[1].everything() == twins[2].everything()


def timeless(removed: Any) -> str:
    return re.sub(r'"\w+_at": "[^"]*"', "", json.dumps(removed))


@pytest.mark.parametrize("template", KINDS)
def test_an_identical_file_sent_again_after_a_roll_back_fares_as_it_did_the_first_time(
    world: World, template: str
) -> None:
    draw = random.Random(template)
    load_drawn(world, draw, "contacts")
    name, content, options = drawn(draw, template)
    first = world.load(name, content, **options)
    with pytest.raises(DuplicateUpload):
        world.submit(name, content, again=False)
    state = json.loads(json.dumps(world.state()))
    roll_back.ask(world.connection, first, by="Ada", why="the wrong file")
    with pytest.raises(DuplicateUpload):  # not yet: it would confirm what is about to go
        world.submit(name, content, again=False)
    roll_back.work(world.worker, first)
    world.run("ALTER TABLE import_batch ALTER seqno RESTART WITH 5000")  # a number that nothing else has
    second = world.load(name, content, again=False, **options)
    assert world.became(second) == world.became(first)
    assert json.loads(json.dumps(world.state()).replace("5000", str(first))) == state
    world.sound()


@pytest.mark.parametrize("template", KINDS)
def test_a_roll_back_done_twice_is_done_once(world: World, template: str) -> None:
    draw = random.Random(f"twice {template}")
    load_drawn(world, draw, "contacts")
    seqno = load_drawn(world, draw, template)
    first = world.roll_back(seqno)
    everything = world.everything()
    assert world.roll_back(seqno) == first
    assert roll_back.ask(world.connection, seqno, by="Bob", why="again") == first
    assert list(roll_back.planned(world.connection, seqno)) == []
    assert world.everything() == everything
    assert [event[1:] for event in everything["events"] if "roll" in event[1]] == [
        ["roll back asked", "Ada", "the wrong file"],
        ["rolled back", "worker", first.in_words],
    ]


# Crashes and company ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nobody catches this."""


@pytest.mark.parametrize("template", KINDS)
def test_a_roll_back_killed_at_any_statement_and_resumed_ends_as_one_undisturbed(
    fresh: Callable[..., World], template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(f"killed {template}")
    stock = fresh()
    load_drawn(stock, draw, "contacts")
    seqno = stock.load(template, "\n".join(LINES[template](draw, 5)) + "\n")
    stock.load(template, "\n".join(LINES[template](draw, 2)) + "\n")
    roll_back.ask(stock.connection, seqno, by="Ada", why="the wrong file")
    undisturbed = fresh(stock, load_chunk=3)
    statements = count_statements(undisturbed, seqno)
    expected = undisturbed.everything()
    assert statements > 30
    for point in range(1, statements + 1):
        world = fresh(stock, load_chunk=3)
        with pytest.raises(Killed):
            work_until(world, seqno, point)
        roll_back.work(world.worker, seqno)
        assert world.everything() == expected, f"killed at statement {point}"


def count_statements(world: World, seqno: int) -> int:
    return work_until(world, seqno, WHOLE)


def work_until(world: World, seqno: int, point: int) -> int:
    """Roll back through a connection whose process dies before a statement; returns how many there were."""
    count = itertools.count(1)
    last = 0

    def step() -> None:
        nonlocal last
        last = next(count)
        if last == point:
            raise Killed

    class Mortal(psycopg2.extras.RealDictCursor):
        def execute(self, query: Any, vars: Any = None) -> None:
            step()
            super().execute(query, vars)

    with contextlib.closing(db.connect(str(world.settings.database_url))) as connection:
        connection.cursor_factory = Mortal
        try:
            roll_back.work(replace(world.worker, connection=connection), seqno)
        except Killed:
            connection.close()  # what a dead process leaves: the server undoes the transaction
            raise
    return last


@pytest.mark.parametrize("template", KINDS)
def test_of_two_roll_backs_at_once_each_record_is_done_by_one(
    fresh: Callable[..., World], template: str
) -> None:
    draw = random.Random(f"two {template}")
    world = fresh(load_chunk=1)
    load_drawn(world, draw, "contacts")
    seqno = world.load(template, "\n".join(LINES[template](draw, 14)) + "\n")
    expected = fresh(world).roll_back(seqno)
    both = fresh(world, load_chunk=1)
    roll_back.ask(both.connection, seqno, by="Ada", why="the wrong file")
    with both.worker.another() as other, ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda worker: roll_back.work(worker, seqno), (both.worker, other)))
    assert {(one.restored, one.spared) for one in done} == {(expected.restored, expected.spared)}
    both.sound()


def test_imports_and_a_roll_back_at_once_neither_deadlock_nor_lose_anything(
    fresh: Callable[..., World],
) -> None:
    """All kinds at once about the same targets: whoever comes first, the database is sound and nothing is refused."""
    draw = random.Random("at once")
    world = fresh(load_chunk=1)
    firsts = [
        world.load("contacts", "".join(f"P{n},p{n}@example.com,A,,,,,,,WEB,NEWS,\n" for n in range(30))),
        world.load("contracts", "".join(f"C{n},2025-12-01,P{n}\n" for n in range(30))),
        world.load("statuses", "".join(f"C{n},2026-01-01,20\n" for n in range(30))),
    ]
    files = [
        ("contacts", "".join(f"P{n},,B,,,,,,,FAIR,,NEWS\n" for n in draw.sample(range(30), 20))),
        ("contracts", "".join(f"C{n},2025-11-01,P{n}\n" for n in draw.sample(range(30), 20))),
        ("statuses", "".join(f"C{n},2026-02-01,30\n" for n in draw.sample(range(30), 20))),
    ]
    seqnos = [world.submit(*file) for file in files]
    jobs: list[Callable[[pipeline.Worker], Any]] = [
        *(functools.partial(lambda worker, seqno: pipeline.work(worker, seqno), seqno=n) for n in seqnos),
        *(functools.partial(lambda worker, seqno: roll_back.work(worker, seqno), seqno=n) for n in firsts),
    ]
    for seqno in firsts:
        roll_back.ask(world.connection, seqno, by="Ada", why="the wrong file")

    def do(job: Callable[[pipeline.Worker], Any]) -> None:
        with world.worker.another() as worker:
            job(worker)

    with ThreadPoolExecutor(len(jobs)) as pool:
        for ended in [pool.submit(do, job) for job in jobs]:
            ended.result()
    world.sound()
    for seqno in seqnos:
        assert batches.get(world.connection, seqno).succeeded
        assert not any("refused_by_database" in one for one in world.became(seqno))


# Which batches ---------------------------------------------------------------------------------------------------


def test_only_a_batch_that_has_ended_can_be_rolled_back(world: World) -> None:
    seqno = world.submit("statuses", "F1,2026-01-01,20\n")
    told = f"Import batch {seqno} is waiting; cancel it first, then it can be rolled back."
    with pytest.raises(NotPossible, match=told):
        roll_back.ask(world.connection, seqno, by="Ada", why="the wrong file")
    with pytest.raises(NotPossible, match=told):
        roll_back.plan(world.connection, seqno, 10)
    with pytest.raises(RecordRefused) as refusal:
        world.run(
            f"INSERT INTO import_batch_roll_back (seqno, asked_by, why) VALUES ({seqno}, 'Ada', 'by hand')"
        )
    assert refusal.value.constraint == "import_batch_roll_back_of_ended"
    with pytest.raises(UnknownCode, match="There is no import batch 99"):
        roll_back.ask(world.connection, 99, by="Ada", why="the wrong file")


def test_nobody_rolls_back_what_nobody_has_asked_for(world: World) -> None:
    seqno = world.load("statuses", "F1,2026-01-01,20\n")
    with pytest.raises(UnknownCode, match="Nobody has asked for a roll back"):
        roll_back.work(world.worker, seqno)


@pytest.mark.parametrize("why", ["", "  ", "x" * 256, "one\x00two"])
def test_a_roll_back_says_why_in_a_line(world: World, why: str) -> None:
    seqno = world.load("statuses", "F1,2026-01-01,20\n")
    with pytest.raises(UnknownCode, match="Say why"):
        roll_back.ask(world.connection, seqno, by="Ada", why=why)
    assert roll_back.of(world.connection, seqno) is None
    assert roll_back.ask(world.connection, seqno, by="Ada", why=" the\nwrong  file ").why == "the wrong file"


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_a_failed_or_cancelled_batch_had_loaded_is_rolled_back_and_it_stays_closed(
    world: World, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings = replace(world.settings, load_chunk=1, load_lanes=1)
    before = world.state()
    seqno = world.submit("statuses", "F1,2026-01-01,20\nF2,2026-01-01,20\nF3,2026-01-01,20\n")
    ending = SetupError("Enough.") if end == "failed" else Fenced()
    stop_after(monkeypatch, 2, ending)
    with pytest.raises(type(ending)):
        pipeline.work(world.worker, seqno)
    monkeypatch.undo()
    if end == "cancelled":
        control.cancel(world.connection, seqno, by="Ada")
    assert batches.get(world.connection, seqno).counts["unprocessed"] == 1
    assert world.state() != before
    assert world.roll_back(seqno).restored == 2
    assert world.state() == before
    with pytest.raises(NotPossible if end == "failed" else Stopped):
        pipeline.work(world.worker, seqno)
    with pytest.raises(RecordRefused) as refusal:
        world.run(
            f"UPDATE import_batch SET status = 'waiting', reopened = reopened + 1 WHERE seqno = {seqno}"
        )
    assert refusal.value.constraint == "import_batch_rolled_back"
    assert world.state() == before


def stop_after(monkeypatch: pytest.MonkeyPatch, chunks: int, ending: Exception) -> None:
    merge, count = loading.merge, itertools.count(1)

    def merge_some(*given: Any) -> Any:
        if next(count) > chunks:
            raise ending
        return merge(*given)

    monkeypatch.setattr(loading, "merge", merge_some)


def test_a_batch_whose_file_was_wrong_has_nothing_to_roll_back(world: World) -> None:
    seqno = world.load("statuses", "")
    assert batches.get(world.connection, seqno).failed
    done = world.roll_back(seqno)
    assert (done.restored, done.spared, done.finished_at is not None) == (0, 0, True)


def test_pending_roll_backs_are_those_of_the_kind_that_are_not_finished_newest_first(world: World) -> None:
    seqnos = [world.load("statuses", f"F{n},2026-01-01,20\n") for n in range(1, 4)]
    other = world.load("contracts", "N1,2025-12-01,\n")
    assert roll_back.pending(world.connection, "contract_status") == []
    for seqno in (*seqnos, other):
        roll_back.ask(world.connection, seqno, by="Ada", why="the wrong file")
    assert roll_back.pending(world.connection, "contract_status") == seqnos[::-1]
    roll_back.work(world.worker, seqnos[1])
    assert roll_back.pending(world.connection, "contract_status") == [seqnos[2], seqnos[0]]
    assert roll_back.pending(world.connection, "contract") == [other]


def test_what_a_roll_back_did_cannot_be_changed(world: World) -> None:
    world.roll_back(world.load("statuses", "F1,2026-01-01,20\n"))
    for change in (
        "UPDATE roll_back_record SET result = 'spared'",
        "DELETE FROM roll_back_record",
        "DELETE FROM import_batch_roll_back",
        "UPDATE import_batch_roll_back SET finished_at = NULL",
    ):
        with pytest.raises(RecordRefused) as refusal:
            world.run(change)
        assert refusal.value.constraint == "roll_back_kept"


# Contract statuses -----------------------------------------------------------------------------------------------


def test_rolled_back_statuses_stay_in_the_history_as_withdrawn(world: World) -> None:
    first = world.load("statuses", "F1,2026-01-10,20\n")
    second = world.load("statuses", "F1,2026-01-20,30\nF1,2026-01-05,30\n")
    known = moment(world)
    world.roll_back(second)
    found = contracts.profile(world.connection, "DEMO", "F1")
    assert [(e.code, e.seqno) for e in found.history] == [("10", None), ("20", first)]
    assert [(e.code, e.seqno, e.record_no, e.why, e.asked_by) for e in found.withdrawn] == [
        ("30", second, 2, "the wrong file", "Ada"),
        ("30", second, 1, "the wrong file", "Ada"),
    ]
    assert found.current == found.history[-1]
    for on, code_then, code_now in (("2026-01-25", "30", "20"), ("2026-01-07", "30", "10")):
        asked = (world.connection, "DEMO", "F1", on)
        then, now = (
            contracts.status_as_of(*asked, known_at=at)  # type: ignore[arg-type]
            for at in (known, moment(world))
        )
        assert (then and then.code, now and now.code) == (code_then, code_now)


def moment(world: World) -> Any:
    time.sleep(0.01)
    return world.rows("SELECT clock_timestamp()")[0][0]


def test_a_contract_without_an_initial_status_has_none_again(world: World) -> None:
    world.run("DELETE FROM status_history; UPDATE contract SET status_id = NULL, date_result = NULL")
    before = world.state()
    seqno = world.load("statuses", "F1,2026-01-10,20\n")
    world.roll_back(seqno)
    assert world.state() == before


def test_a_definitive_status_that_is_rolled_back_bars_nothing_any_more(world: World) -> None:
    first = world.load("statuses", "F1,2026-01-10,90\n")
    assert world.became(world.load("statuses", "F1,2026-01-11,20\n")) == [
        (1, "rejected", "definitive_status")
    ]
    assert (
        world.roll_back(first).restored == 1
    )  # a record that was rejected has neither changed nor confirmed
    assert world.became(world.load("statuses", "F1,2026-01-11,20\n")) == [(1, "updated")]


def test_a_status_is_spared_once_a_timer_has_gone_on_from_it(world: World) -> None:
    seqno = world.load("statuses", "F4,2025-01-05,20\nF5,2026-01-05,20\n")
    automatic(world, "40", days=30)
    assert [given.contracts for given in timers.give(world.connection)] == [6]
    seqno_after = world.load("statuses", "F6,2026-01-05,20\n")
    assert world.roll_back(seqno_after).restored == 1  # after the timer: nobody has gone on from it
    assert world.roll_back(seqno).spared == 2
    assert world.told(seqno) == [
        (1, "F4", 'The status "40" has been given automatically since.'),
        (2, "F5", 'The status "40" has been given automatically since.'),
    ]
    world.sound()


def test_a_timer_gives_what_only_a_withdrawn_status_had_kept_back(world: World) -> None:
    seqno = world.load("statuses", "F4,2025-01-05,90\nF5,2025-01-05,40\n")
    replay_with_status(world, "40")
    automatic(world, "40", days=30)
    world.roll_back(seqno)
    timers.give(world.connection)
    given = world.rows("""SELECT form_id, code, cause FROM status_chain JOIN contract USING (contract_id)
                          JOIN contract_status ON contract_status.status_id = status_chain.status_id
                          WHERE is_current AND form_id IN ('F4', 'F5') ORDER BY form_id""")
    assert given == [["F4", "40", "timer"], ["F5", "40", "timer"]]
    world.sound()


def automatic(world: World, code: str, days: int) -> None:
    status = reference.Status(code=code, phase="NEW", description="Due", automatic_after_days=days)
    domain = reference.Domain(code="DEMO", name="Demo", statuses=(status,))
    reference.load(world.connection, reference.Reference(domains=(domain,)))


def replay_with_status(world: World, code: str) -> None:
    """A code that parked records wait for comes into being."""
    with_status(world, code)
    replay.replay(world.worker)


def with_status(world: World, code: str) -> None:
    status = reference.Status(code=code, phase="NEW", description="New")
    domain = reference.Domain(code="DEMO", name="Demo", statuses=(status,))
    reference.load(world.connection, reference.Reference(domains=(domain,)))


def test_a_confirmation_counts_no_more_once_its_batch_is_rolled_back(world: World) -> None:
    before = world.state()
    first = world.load("statuses", "F1,2026-01-10,20\n")
    second = world.load("statuses", "F1,2026-01-10,20\n")
    assert world.became(second) == [(1, "unchanged")]
    plan = roll_back.plan(world.connection, first, 10)
    assert (plan.restored, plan.spared, roll_back.why_spared(plan.spared_records[0])) == (
        0, 1, f"Import batch {second}, record 1, has said the same since.",
    )  # fmt: skip
    assert world.roll_back(second).restored == 0
    assert world.roll_back(first).restored == 1
    assert world.state() == before


def test_targets_of_other_kinds_that_have_the_same_number_do_not_matter(world: World) -> None:
    """Contacts and contracts are numbered apart; the ledger has the numbers of both."""
    contact = world.load("contacts", "K1,,Ash,,,,,,,,,\n")
    same = "SELECT form_id FROM contract JOIN contact ON contact.contact_id = contract_id"
    ((form_id,),) = world.rows(same)
    world.load("statuses", f"{form_id},2026-01-10,20\n")
    assert world.roll_back(contact).spared == 0


# Parked records --------------------------------------------------------------------------------------------------


def test_parked_records_of_a_rolled_back_batch_wait_no_longer_and_replayed_ones_are_undone(
    world: World,
) -> None:
    before = world.state()
    seqno = world.load("statuses", "F1,2026-01-10,70\nF2,2026-01-10,71\nF3,2026-01-10,20\nF4,2026-01-10,72\n")
    replay_with_status(world, "70")
    assert parked.became(world.connection, seqno) == {"parked": 2, "updated": 1}
    plan = roll_back.plan(world.connection, seqno, 10)
    assert (plan.restored, plan.withdrawn, [r["record_no"] for r in plan.restored_records]) == (2, 2, [1, 3])
    roll_back.ask(world.connection, seqno, by="Ada", why="the wrong file")
    replay_with_status(world, "71")  # nothing is replayed from here on
    assert parked.became(world.connection, seqno) == {"parked": 2, "updated": 1}
    assert not parked.anything_due(world.connection, "contract_status")
    assert roll_back.work(world.worker, seqno).restored == 2
    replay_with_status(world, "72")
    assert world.state() == before
    assert parked.became(world.connection, seqno) == {"updated": 1, "withdrawn": 2}
    assert parked.groups(world.connection, None, None, 10) == []
    world.sound()


def test_a_replay_that_came_after_another_batch_is_undone_and_what_came_before_is_spared(
    world: World,
) -> None:
    first = world.load("statuses", "F1,2026-01-10,20\nF1,2026-01-12,70\n")
    second = world.load("statuses", "F1,2026-01-11,30\n")
    replay_with_status(world, "70")
    world.roll_back(first)
    assert world.told(first) == [
        (1, "F1", f"Import batch {second}, record 1, has changed it since."),
        (2, "F1"),
    ]
    assert [e.code for e in contracts.profile(world.connection, "DEMO", "F1").history] == ["10", "20", "30"]
    world.sound()


def test_what_a_replay_confirmed_is_spared(world: World) -> None:
    waiting = world.load("statuses", "N1,2026-01-10,20\n")
    world.load("contracts", "N1,2025-12-01,\n")
    first = world.load("statuses", "N1,2026-01-10,20\n")
    replay.replay(world.worker)
    assert parked.became(world.connection, waiting) == {"unchanged": 1}
    world.roll_back(first)
    assert world.told(first) == [(1, "N1", f"Import batch {waiting}, record 1, has said the same since.")]


def test_a_replay_that_had_to_wait_for_its_turn_came_after_the_batch_it_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction began before the batch entered what it confirms."""
    waiting = world.load("statuses", "F1,2026-01-10,70\n")
    replaying = threading.Thread(target=replay_with_status, args=(world_apart(world), "70"))
    merge = loading.merge

    def merge_while_a_replay_waits(*given: Any) -> Any:
        replaying.start()
        until(world, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        return merge(*given)

    monkeypatch.setattr(loading, "merge", merge_while_a_replay_waits)
    with_status(world, "70")
    first = world.load("statuses", "F1,2026-01-10,70\n")
    replaying.join(20)
    assert parked.became(world.connection, waiting) == {"unchanged": 1}
    world.roll_back(first)
    assert world.told(first) == [(1, "F1", f"Import batch {waiting}, record 1, has said the same since.")]


def world_apart(world: World) -> World:
    """The same world through a connection of its own."""
    return World(world.name, db.connect(str(world.settings.database_url)), world.settings, world.folder)


def until(world: World, query: str) -> None:
    with contextlib.closing(world_apart(world).connection) as connection:
        other = World(world.name, connection, world.settings, world.folder)
        for _ in range(200):
            if other.rows(query) == [[True]]:
                return
            time.sleep(0.05)
    raise AssertionError(query)


# Contracts -------------------------------------------------------------------------------------------------------


def test_a_contract_that_has_a_status_of_others_stays(world: World) -> None:
    created = world.load("contracts", "N1,2025-12-01,\nN2,2025-12-01,\nN3,2025-12-01,\nN4,2025-12-01,\n")
    statuses = world.load("statuses", "N1,2026-01-10,20\nN2,2025-12-01,10\n")
    assert world.became(statuses) == [
        (1, "updated"),
        (2, "unchanged"),
    ]  # the second says what the first day says
    corrected = world.load("contracts", "N3,2025-12-02,\n")
    world.roll_back(created)
    assert world.told(created) == [
        (1, "N1", f"Import batch {statuses}, record 1, has given it a status."),
        (2, "N2", f"Import batch {statuses}, record 2, has given it a status."),
        (3, "N3", f"Import batch {corrected}, record 1, has changed it since."),
        (4, "N4"),
    ]
    world.sound()


def test_a_contract_that_is_removed_leaves_its_content_with_what_was_withdrawn(world: World) -> None:
    created = world.load("contracts", "N1,2025-12-01,\n")
    statuses = world.load("statuses", "N1,2026-01-10,20\n")
    world.roll_back(statuses)
    world.roll_back(created)
    with pytest.raises(UnknownCode):
        contracts.profile(world.connection, "DEMO", "N1")
    ((removed,),) = world.rows(f"SELECT removed FROM roll_back_record WHERE seqno = {created}")
    assert removed["fields"] == {"form_id": "N1", "sign_up_date": "2025-12-01"}
    assert [
        (e["status"], e["cause"], e["seqno"], e["withdrawn_at"] is None) for e in removed["status_history"]
    ] == [
        ("10", "initial", None, True),
        ("20", "import", statuses, False),
    ]
    world.sound()


def test_a_contract_is_spared_when_a_timer_has_given_it_a_status(world: World) -> None:
    created = world.load("contracts", "N1,2025-12-01,\n")
    automatic(world, "40", days=1)
    timers.give(world.connection)
    world.roll_back(created)
    assert world.told(created) == [(1, "N1", 'The status "40" has been given automatically since.')]


def test_a_contract_that_a_reference_file_has_corrected_since_is_spared(world: World) -> None:
    seqno = world.load("contracts", "F1,2025-12-01,\nF2,2025-12-01,\n")
    corrected = reference.Contract(form_id="F1", sign_up_date="2025-12-05")  # type: ignore[arg-type]
    domain = reference.Domain(code="DEMO", name="Demo", contracts=(corrected,))
    reference.load(world.connection, reference.Reference(domains=(domain,)), by="Bob")
    world.roll_back(seqno)
    assert world.told(seqno) == [
        (1, "F1", "A reference file, loaded by Bob, has changed it since."),
        (2, "F2"),
    ]


def test_a_contract_keeps_its_contact_if_the_one_before_is_gone(world: World) -> None:
    contact = world.load("contacts", "K1,,Ash,,,,,,,,,\n")
    world.load("contracts", "N1,2025-12-01,K1\n")
    world.load("contacts", "K2,,Birch,,,,,,,,,\n")
    moved = world.load("contracts", "N1,2025-12-01,K2\n")
    assert world.roll_back(contact).restored == 1  # nobody names K1 any more
    world.roll_back(moved)
    assert world.told(moved) == [(1, "N1", 'The contact "K1", which it had before, does not exist any more.')]
    world.sound()


# Contacts --------------------------------------------------------------------------------------------------------


def test_a_contact_that_a_contract_names_stays(world: World) -> None:
    created = world.load("contacts", "K1,,Ash,,,,,,,,,\nK2,,Birch,,,,,,,,,\n")
    named = world.load("contracts", "N1,2025-12-01,K1\n")
    world.roll_back(created)
    assert world.told(created) == [(1, "K1", 'Contract "N1" names it.'), (2, "K2")]
    world.roll_back(named)
    world.sound()


def test_a_number_by_which_a_contract_names_its_contact_stays(world: World) -> None:
    world.load("contacts", ",ada@example.com,Ash,,,,,,,,,\n")
    filled = world.load("contacts_by_email", "K1,ada@example.com,,,,,,,,,,\n")
    world.load("contracts", "N1,2025-12-01,K1\n")
    world.roll_back(filled)
    assert world.told(filled) == [(1, "K1", 'Contract "N1" names it.')]


def test_an_opt_out_of_another_source_stays(world: World) -> None:
    """What the batch entered is withdrawn, in or out; what others entered counts again."""
    world.load("contacts", "K1,,Ash,,,,,,,,OFFERS,\nK2,,Birch,,,,,,,,NEWS,\n")
    seqno = world.load("contacts", "K1,,,,,,,,,,NEWS,OFFERS\nK2,,,,,,,,,,,NEWS\nK3,,Cedar,,,,,,,,NEWS,\n")
    world.run(BY_HAND.format(external_id="K1", list_id="NEWS"))
    world.run(BY_HAND.format(external_id="K3", list_id="NEWS"))
    world.roll_back(seqno)
    assert [row[2] for row in world.state()["contacts"]] == [
        ["(NEWS,f)", "(OFFERS,t)"],  # out by hand; in again, as before
        ["(NEWS,t)"],
        ["(NEWS,f)"],
    ]
    assert world.told(seqno)[2] == (3, "K3", "It has been opted in to or out of a list by hand since.")
    found = contacts.profile(world.connection, "DEMO", "K1", 10)
    assert [(one["list_id"], one["opted_in"], one["withdrawn_at"] is not None) for one in found.subscription_history] == [
        ("NEWS", False, False), ("OFFERS", False, True), ("NEWS", True, True), ("OFFERS", True, False),
    ]  # fmt: skip
    world.sound()


BY_HAND = """
    WITH stands AS (
        UPDATE contact_subscription SET opted_in = false, changed_at = now()
        WHERE contact_id = (SELECT contact_id FROM contact WHERE external_id = '{external_id}')
          AND subscription_id = (SELECT subscription_id FROM subscription WHERE list_id = '{list_id}')
        RETURNING contact_id, subscription_id
    )
    INSERT INTO subscription_history (contact_id, domain_id, subscription_id, opted_in)
    SELECT contact_id, domain_id, subscription_id, false FROM stands JOIN contact USING (contact_id)"""


def test_of_the_origins_the_next_one_is_the_first_again(world: World) -> None:
    seqno = world.load("contacts", "K1,,Ash,,,,,,,WEB,,\n")
    later = world.load("contacts", "K1,,,,,,,,,FAIR,,\n")
    world.roll_back(seqno)
    assert world.told(seqno) == [(1, "K1", f"Import batch {later}, record 1, has changed it since.")]
    world.roll_back(later)
    first = world.load("contacts", "K1,,,,,,,,,FAIR,,\n")
    assert world.told(first) == []
    assert [o["code"] for o in contacts.profile(world.connection, "DEMO", "K1", 10).origins] == [
        "WEB",
        "FAIR",
    ]


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_email_that_somebody_else_has_taken_since_stays_there(world: World, by_hand: bool) -> None:
    world.load("contacts", "K1,ada@example.com,Ash,,,,,,,,,\nK2,bob@example.com,Birch,,,,,,,,,\n")
    moved = world.load("contacts", "K1,new@example.com,,,,,,,,,,\nK2,,Beech,,,,,,,,,\n")
    if by_hand:  # by a contact that is restored too, but whose email the batch had nothing to do with
        world.run("UPDATE contact SET email = 'Ada@example.com' WHERE external_id = 'K2'")
    else:
        world.load("contacts", "K3,ADA@example.com,Cedar,,,,,,,,,\n")
    world.roll_back(moved)
    assert world.told(moved) == [
        (1, "K1", '"ada@example.com", which it had before, belongs to another contact now.'),
        (2, "K2"),
    ]
    world.sound()


@pytest.mark.parametrize("chunk", [1, WHOLE])
@pytest.mark.parametrize("barred", ["", "P1", "P2", "P3"])
def test_keys_that_went_round_within_a_batch_go_back_together_or_not_at_all(
    fresh: Callable[..., World], chunk: int, barred: str
) -> None:
    """P1, P2 and P3 hand on their emails in a circle, P4 gives its own to a contact that the batch created."""
    world = fresh(load_chunk=chunk)
    world.load("contacts", "".join(f"P{n},p{n}@example.com,Ash,,,,,,,,,\n" for n in range(1, 5)))
    before = world.state()
    seqno = world.load("contacts", "".join(f"P{n},q{n}@example.com,,,,,,,,,,\n" for n in range(1, 5)) + "P5,,Elm,,,,,,,,,\n")  # fmt: skip
    world.run("""UPDATE contact SET email = NULL;
        UPDATE contact SET email = CASE external_id WHEN 'P1' THEN 'p2@example.com' WHEN 'P2' THEN 'P3@example.com'
            WHEN 'P3' THEN 'p1@example.com' WHEN 'P4' THEN 'q4@example.com' ELSE 'p4@example.com' END""")
    if barred:
        world.load("contacts", f"{barred},,Beech,,,,,,,,,\n")
    done = world.roll_back(seqno)
    assert done.spared == (3 if barred else 0)
    assert not any("SQLSTATE" in why for _, _, *whys in world.told(seqno) for why in whys)
    if not barred:
        assert world.state() == before
    emails = dict(world.rows("SELECT external_id, email FROM contact"))
    assert emails["P4"] == "p4@example.com"
    assert emails["P1"] == ("p2@example.com" if barred else "p1@example.com")
    world.sound()


def test_what_the_database_does_not_take_back_is_narrowed_down_to_its_record(world: World) -> None:
    world.load("contacts", "".join(f"P{n},,Ash{n},,,,,,,,,\n" for n in range(1, 8)))
    seqno = world.load("contacts", "".join(f"P{n},,Birch,,,,,,,,,\n" for n in range(1, 8)))
    world.run("ALTER TABLE contact ADD CONSTRAINT no_ash CHECK (last_name <> 'Ash5') NOT VALID")
    done = world.roll_back(seqno)
    assert (done.restored, done.spared) == (6, 1)
    assert [one for one in world.told(seqno) if len(one) > 2] == [
        (5, "P5", "The database does not take what it had before (SQLSTATE 23514).")
    ]
    assert [row[0]["last_name"] for row in world.state()["contacts"]] == [
        "Ash1", "Ash2", "Ash3", "Ash4", "Birch", "Ash6", "Ash7",
    ]  # fmt: skip
    world.sound()


def test_an_update_from_before_updates_were_noted_is_spared(world: World) -> None:
    world.load("contacts", "P1,,Ash,,,,,,,,,\n")
    seqno = world.load("contacts", "P1,,Birch,,,,,,,,,\n")
    world.run(f"""UPDATE import_record SET before = NULL, recorded_at = '2020-01-01' WHERE seqno = {seqno};
                  UPDATE import_record SET recorded_at = '2019-01-01' WHERE seqno < {seqno}""")
    world.roll_back(seqno)
    assert world.told(seqno) == [(1, "P1", "What it was before was not noted at that time.")]


def test_a_contact_that_somebody_has_deleted_is_told(world: World) -> None:
    seqno = world.load("contacts", "P1,,Ash,,,,,,,,,\nP2,,Ash,,,,,,,,,\n")
    world.run("DELETE FROM contact WHERE external_id = 'P1'")
    world.roll_back(seqno)
    assert world.told(seqno) == [(1, None, "It does not exist any more."), (2, "P2")]


def test_a_profile_tells_what_was_rolled_back(world: World) -> None:
    first = world.load("contacts", "P1,,Ash,,,,,1,,WEB,,\n")
    second = world.load("contacts", "P1,,Birch,,,,,2,,FAIR,,\n")
    world.roll_back(second)
    third = world.load("contacts", "P1,,Cedar,,,,,,,,,\n")
    found = contacts.profile(world.connection, "DEMO", "P1", 10)
    assert [(r["seqno"], r["changes"], r["origins_added"], r["rolled_back_at"] is None) for r in found.records] == [
        (third, {"last_name": {"before": "Ash", "after": "Cedar"}}, [], True),
        (second, {"last_name": {"before": "Ash", "after": "Birch"}, "attributes.card": {"before": 1, "after": 2}}, ["FAIR"], False),
        (first, {}, ["WEB"], True),
    ]  # fmt: skip


# Locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "kinds"),
    [
        ("contacts", ["contact", "contract"]),
        ("contracts", ["contract", "contract_status"]),
        ("statuses", ["contract_status"]),
    ],
)
def test_a_chunk_waits_for_imports_of_every_kind_that_it_could_meet(
    world: World, template: str, kinds: list[str]
) -> None:
    seqno = load_drawn(world, random.Random(1), template)
    batch = batches.get(world.connection, seqno)
    roll_back.ask(world.connection, seqno, by="Ada", why="the wrong file")
    for kind in kinds:
        with contextlib.closing(db.connect(str(world.settings.database_url))) as other:
            with other.cursor() as cursor:
                cursor.execute(db.queries("loading")["lock"], {"kind": kind, "domain_id": batch.domain_id})
            waiting = threading.Thread(target=work_apart, args=(world, seqno))
            waiting.start()
            waiting.join(0.4)
            assert waiting.is_alive(), kind
            assert roll_back.of(world.connection, seqno).mark == 0  # type: ignore[union-attr]
            if kind != kinds[-1]:
                world.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
            other.close()
            waiting.join(20)
    assert roll_back.of(world.connection, seqno).finished_at  # type: ignore[union-attr]


def work_apart(world: World, seqno: int) -> None:
    with contextlib.suppress(TryAgain), world.worker.another() as worker:
        roll_back.work(worker, seqno)


def batch_of(world: World, seqno: int) -> Batch:
    return batches.get(world.connection, seqno)


def test_a_list_of_batches_knows_which_are_rolled_back(world: World) -> None:
    seqno = world.load("statuses", "F1,2026-01-10,20\n")
    assert batch_of(world, seqno).rolled_back_at is None
    done = world.roll_back(seqno)
    assert batches.listed(world.connection)[0].rolled_back_at == done.finished_at
    assert batch_of(world, seqno).succeeded  # the ledger stays as it is
