"""The histories in years: opened when something is entered, let go whole, and what goes on counting stays."""

from __future__ import annotations

import functools
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rowledger import (
    batches,
    contacts,
    contracts,
    db,
    erasure,
    histories,
    housekeeping,
    ledger,
    loading,
    pipeline,
    reference,
    roll_back,
    suites,
    templates,
    timers,
    uploads,
)
from rowledger.db import Connection, row, rows, transaction
from rowledger.errors import NotPossible
from rowledger.model import Batch
from rowledger.reference import Reference
from rowledger.retention import Retention
from rowledger.settings import Settings

Fresh = Callable[..., AbstractContextManager[str]]
_numbers = itertools.count(1)
# Kept is from the first day of the year before last on.
FIRST = date(datetime.now(UTC).year - 2, 1, 1)
DAYS = (datetime.now(UTC).date() - FIRST).days - 30
KEEP = Retention.model_validate({"domains": {"OWN": {"history": DAYS}}})
OLD, OLDER, OLDEST = (str(FIRST - timedelta(days=days)) for days in (10, 400, 800))
NEW, NEWER = (str(FIRST + timedelta(days=days)) for days in (10, 400))
TEMPLATES = {
    "statuses": """\
kind: contract_status
title: Statuses
file: {delimiter: ",", header: false, fields: 3}
columns:
  - {field: form_id, position: 1, title: Form ID, required: true, type: code}
  - {field: date_result, position: 2, title: Date Result, required: true, type: date, format: YYYY-MM-DD}
  - {field: result_code, position: 3, title: Result code, required: true, type: code}
policies: {unknown_contract: park}
""",
    "contracts": """\
kind: contract
title: Contracts
file: {delimiter: ",", header: false, fields: 2}
columns:
  - {field: form_id, position: 1, title: Form ID, required: true, type: code}
  - {field: sign_up_date, position: 2, title: Signed, required: true, type: date, format: YYYY-MM-DD}
""",
    "contacts": """\
kind: contact
title: Contacts
file: {header: false}
columns:
  - {field: external_id, position: 1, title: Number, type: code}
  - {field: last_name, position: 2, title: Name}
  - {field: subscriptions, position: 3, title: Lists, type: list, separator: "|"}
  - {field: opt_outs, position: 4, title: Out, type: list, separator: "|"}
""",
}


@functools.cache
def _template(name: str) -> templates.ImportTemplate:
    return templates.parse_template(TEMPLATES[name], name, loading.kinds(), name)


class World:
    """A database with a domain of its own, whose contract A1 was signed long ago and G1 lately; and who imports into it."""

    def __init__(self, connection: Connection, settings: Settings, folder: Path) -> None:
        self.connection, self.settings, self.folder = connection, settings, folder

    @property
    def worker(self) -> pipeline.Worker:
        return pipeline.Worker(self.connection, self.settings, "worker")

    def reference(self, domain: str = "OWN", **parts: Any) -> None:
        given = {"domains": [{"code": domain, "name": domain} | parts]}
        reference.load(self.connection, Reference.model_validate(given))

    @property
    def domain_id(self) -> int:
        ((domain_id,),) = self.rows("SELECT domain_id FROM domain WHERE code = 'OWN'")
        return int(domain_id)

    def submit(self, template: str, *lines: str, domain: str = "OWN") -> int:
        path = self.folder / f"file_{next(_numbers)}.csv"
        path.write_text("".join(f"{line}\n" for line in lines))
        chosen = _template(template)
        return batches.register(
            self.connection, uploads.keep_file(path, self.settings.uploads), chosen, suites.suite_hash(chosen), domain,
            by="tester", through="command line", again=True,
        )  # fmt: skip

    def load(self, template: str, *lines: str, domain: str = "OWN") -> list[tuple[Any, ...]]:
        """Import lines; tells what became of each."""
        seqno = self.submit(template, *lines, domain=domain)
        pipeline.work(self.worker, seqno)
        return [
            (one["outcome"], *(reason["rule"] for reason in one["reasons"] or ()))
            for one in ledger.records(self.connection, seqno)
        ]

    def let_go(self, retention: Retention = KEEP) -> dict[str, int]:
        """One night: tells what went."""
        return {one.what: one.items for one in housekeeping.clean(self.worker, retention)}

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with transaction(self.connection) as cursor:
            return [tuple(one.values()) for one in rows(cursor, query, values)]

    def run(self, statement: str) -> None:
        with transaction(self.connection) as cursor:
            cursor.execute(statement)

    def history(self, form_id: str = "A1") -> list[tuple[str, str]]:
        return [(str(e.date_result), e.code) for e in self.contract(form_id).history]

    def contract(self, form_id: str = "A1") -> contracts.Contract:
        return contracts.profile(self.connection, "OWN", form_id)

    def current(self) -> list[tuple[Any, ...]]:
        return self.rows(
            """
            SELECT form_id, code, date_result::text, seqno, record_no
            FROM contract LEFT JOIN contract_status USING (status_id)
            WHERE contract.domain_id = %(domain_id)s ORDER BY form_id""",
            domain_id=self.domain_id,
        )

    def lists(self, key: str = "K1") -> list[tuple[str, bool]]:
        """The history of a contact's subscriptions, the oldest first."""
        found = contacts.profile(self.connection, "OWN", key, 99)
        return [(one["list_id"], one["opted_in"]) for one in reversed(found.subscription_history)]

    def roll_back(self, seqno: int) -> tuple[int, int]:
        roll_back.ask(self.connection, seqno, by="Ada", why="the wrong file")
        done = roll_back.work(self.worker, seqno)
        return done.restored, done.spared

    def violated(self) -> list[str]:
        return [one["check"] for one in ledger.check(self.connection) if one["violations"]]


@pytest.fixture
def make_world(fresh_database: Fresh, settings: Settings, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds; in the end every invariant holds in each."""
    with ExitStack() as stack:
        worlds = []

        def make(automatic: dict[str, int] | None = None) -> World:
            url = stack.enter_context(fresh_database())
            connection = stack.enter_context(closing(db.connect(url)))
            world = World(connection, replace(settings, database_url=url), tmp_path)
            statuses = [
                {"code": "10", "initial": True},
                {"code": "20"},
                {"code": "30"},
                {"code": "90", "definitive": True},
            ]
            statuses += [
                {"code": code, "automatic_after_days": (automatic or {}).get(code)} for code in ("40", "50")
            ]
            signed = {"A1": OLDEST, "G1": NEW, "H1": "1987-01-01"}
            world.reference(
                phases=[{"code": "NEW", "description": "New"}],
                statuses=[{"phase": "NEW", "description": "Some status"} | status for status in statuses],
                contracts=[{"form_id": form_id, "sign_up_date": day} for form_id, day in signed.items()],
                subscriptions=[
                    {"list_id": name, "name": name, "type": "email"} for name in ("NEWS", "OFFERS")
                ],
            )
            worlds.append(world)
            return world

        yield make
        for world in worlds:
            assert world.violated() == []


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture(autouse=True)
def _known_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a template and deriving its suite take longer than working such a file off, and each comes many times."""
    judge = functools.cache(suites.judge)
    monkeypatch.setattr(suites, "judge", lambda template: judge(template))
    monkeypatch.setattr(pipeline, "template_of", lambda connection, batch: _template(_named(batch)))


def _named(batch: Batch) -> str:
    return {"contract_status": "statuses", "contract": "contracts", "contact": "contacts"}[batch.kind]


def volumes(world: World, history: str = "status") -> list[str]:
    """The tables of the volumes of OWN that are there, without what all are called."""
    found = world.rows(
        f"SELECT tablename FROM pg_tables WHERE tablename ~ '^{history}_history_{world.domain_id}_' ORDER BY 1"
    )
    return [name.removeprefix(f"{history}_history_{world.domain_id}_") for (name,) in found]


def year(day: str) -> str:
    return day[:4]


# Opening -------------------------------------------------------------------------------------------------------


def test_an_entry_is_in_the_volume_of_its_year_and_domain(world: World) -> None:
    assert world.load("statuses", f"A1,{OLD},20", f"A1,{NEW},30") == [("updated",), ("updated",)]
    found = world.rows("""
        SELECT h.date_result::text, h.tableoid::regclass::text FROM status_history AS h JOIN contract USING (contract_id)
        WHERE form_id IN ('A1', 'H1') ORDER BY 1""")
    of_all = f"status_history_{world.domain_id}"
    expected = [(day, f"{of_all}_{year(day)}") for day in (OLDEST, OLD, NEW)]
    assert found == [("1987-01-01", f"{of_all}_before_2000"), *expected]


def test_all_who_enter_something_open_its_year(world: World) -> None:
    world.load("contracts", "N1,2001-05-05")
    world.load("statuses", "N2,2002-05-05,20", "N1,2003-05-05,20")  # one waits
    world.reference(
        statuses=[{"code": "60", "phase": "NEW", "description": "Later", "automatic_after_days": 400}],
        contracts=[{"form_id": "N3", "sign_up_date": "2004-05-05"}],
    )
    timers.give(world.connection, "OWN")
    assert {"2001", "2003", "2004", "2005"} <= {*volumes(world)}
    world.load("contacts", "K1,Ash,NEWS,")
    assert str(datetime.now(UTC).year) in volumes(world, "subscription")


def test_a_dry_run_opens_no_year(world: World, tmp_path: Path) -> None:
    from rowledger.dry_run import dry_run

    (file := tmp_path / "statuses.csv").write_text("A1,2001-05-05,20\n")
    before = volumes(world)
    with dry_run(
        world.worker, file, _template("statuses"), suites.suite_hash(_template("statuses")), "OWN"
    ) as trial:
        assert trial.batch.counts["historic"] == 1
    assert volumes(world) == before


OPEN = "SELECT open_history('status_history', %(domain_id)s, '{2007-01-01}')"


def test_a_year_that_two_open_at_once_is_opened_once(world: World, settings: Settings) -> None:
    with closing(db.connect(world.settings.database_url)) as other:
        asked = {"domain_id": world.domain_id}
        with transaction(world.connection) as cursor:
            cursor.execute(OPEN, asked)
            there = threading.Event()

            def open_too() -> None:
                with transaction(other) as theirs:
                    there.set()
                    theirs.execute(OPEN, asked)

            thread = threading.Thread(target=open_too)
            thread.start()
            there.wait(10)
            wait_for_a_lock(world)
        thread.join(30)
        assert not thread.is_alive()
    assert volumes(world).count("2007") == 1


def wait_for_a_lock(world: World) -> None:
    """Until somebody waits for an advisory lock."""
    with closing(db.connect(world.settings.database_url)) as looking:
        for _ in range(3000):
            with transaction(looking) as cursor:
                if rows(cursor, "SELECT FROM pg_locks WHERE NOT granted"):
                    return
                cursor.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits")


def test_a_chunk_looks_into_the_volumes_of_its_domain_alone(world: World) -> None:
    asked = {"domain_id": world.domain_id, "contract_id": 1}
    with transaction(world.connection) as cursor:
        plan = str(rows(cursor, f"EXPLAIN {db.queries('contracts')['history']}", asked))
    assert f" on status_history_{world.domain_id}_{year(OLDEST)}" in plan
    assert " on status_history_1_" not in plan  # of DEMO, whose contracts came with the reference data


# Letting go ----------------------------------------------------------------------------------------------------


def test_years_go_whole_and_each_contract_keeps_its_last_entry_before_them(world: World) -> None:
    world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30", f"A1,{NEW},20", f"G1,{NEWER},30")
    now = world.current()
    assert housekeeping.forecast(world.worker, KEEP)[0].what == "years of the status history"
    assert len(world.history()) == 4
    expected = {one.what: one.items for one in housekeeping.forecast(world.worker, KEEP)}
    # A1 had three entries, H1 has one, which stays.
    assert expected == {"years of the status history": 3, "entries of the status history": 2}
    assert world.let_go() == expected
    assert volumes(world) == [str(FIRST.year), str(FIRST.year + 1), f"before_{FIRST.year}"]
    assert world.history() == [(OLD, "30"), (NEW, "20")]
    assert world.contract().had == ("10", "20", "30")
    assert world.history("G1") == [(NEW, "10"), (NEWER, "30")]
    assert world.contract("G1").had == ()
    assert world.contract("H1").had == ()
    assert world.current() == now
    assert world.let_go() == {}


def test_what_was_kept_before_goes_with_the_next_years(world: World) -> None:
    world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30", f"A1,{NEW},40", f"A1,{NEWER},50")
    assert world.let_go()["entries of the status history"] == 2
    a_year_later = Retention.model_validate({"domains": {"OWN": {"history": DAYS - 366}}})
    assert world.let_go(a_year_later) == {
        "years of the status history": 1,
        "entries of the status history": 1,
    }
    assert world.history() == [(NEW, "40"), (NEWER, "50")]
    assert world.contract().had == ("10", "20", "30", "40")
    assert world.load("statuses", f"A1,{OLD},30") == [("ignored", "before_history")]


def test_other_domains_keep_theirs(world: World) -> None:
    world.reference(
        "OTHER",
        contracts=[{"form_id": "A1", "sign_up_date": OLDEST}],
        phases=[{"code": "NEW", "description": "New"}],
        statuses=[{"code": "10", "phase": "NEW", "description": "Signed"}],
    )
    world.load("statuses", f"A1,{OLDER},10", f"A1,{OLD},10", domain="OTHER")
    world.let_go()
    assert [str(e.date_result) for e in contracts.profile(world.connection, "OTHER", "A1").history] == [
        OLDER,
        OLD,
    ]
    assert world.let_go(Retention.model_validate({"domains": {"OTHER": {"history": DAYS}}})) == {
        "years of the status history": 3, "entries of the status history": 1}  # fmt: skip


def test_without_a_word_about_histories_everything_is_kept(world: World) -> None:
    world.load("statuses", f"A1,{OLD},20")
    assert world.let_go(Retention.model_validate({"others": {"ledger": 1, "cells": 1}})) == {}
    assert world.history() == [(OLDEST, "10"), (OLD, "20")]


def test_while_a_batch_is_being_rolled_back_nothing_goes(world: World) -> None:
    world.load("statuses", f"A1,{OLD},20", f"A1,{NEW},30")
    roll_back.ask(world.connection, 1, by="Ada", why="the wrong file")
    assert world.let_go() == {}
    assert roll_back.work(world.worker, 1).restored == 2


def test_what_somebody_reads_goes_the_next_time(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(db.queries("housekeeping"), "impatience", "SET LOCAL lock_timeout = '50ms'")
    world.load("statuses", f"A1,{OLD},20", f"A1,{NEW},30")
    before = world.history()
    with closing(db.connect(world.settings.database_url)) as reader, caplog.at_level("INFO", "rowledger"):
        with transaction(reader) as cursor:
            row(cursor, "SELECT * FROM status_history LIMIT 1")
            assert world.let_go() == {}
        assert "The status history is in use; it goes the next time" in caplog.text
        assert world.history() == before
    assert world.let_go()["years of the status history"] == 2


@pytest.mark.parametrize("point", ["make", "keep", "attach", "dropped"])
def test_who_dies_on_the_way_leaves_it_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    world.load("statuses", f"A1,{OLD},20", f"A1,{NEW},30")
    before, tables = world.history(), volumes(world)
    with monkeypatch.context() as broken:
        broken.setitem(db.queries("histories"), point, "SELECT 1 / 0")
        with pytest.raises(Exception, match="22012"):
            world.let_go()
    assert (world.history(), volumes(world)) == (before, tables)
    assert world.let_go()["years of the status history"] == 2


def test_of_two_who_keep_house_at_once_the_second_finds_the_years_gone(world: World) -> None:
    world.load("statuses", f"A1,{OLD},20", f"A1,{NEW},30")
    with closing(db.connect(world.settings.database_url)) as other, ThreadPoolExecutor(1) as pool:
        with transaction(other) as cursor:
            (due,) = rows(
                cursor, db.queries("histories")["due"], {"domain_id": world.domain_id, "days": DAYS}
            )
            told = histories._let_go(cursor, due | {"domain_id": world.domain_id, "days": DAYS}, trial=False)
            second = pool.submit(world.let_go)
            wait_for_a_lock(world)
        assert told is not None
        assert told.years == 2
        assert second.result(60) == {}
    assert world.history() == [(OLD, "20"), (NEW, "30")]


def test_imports_wait_until_the_years_are_gone(world: World) -> None:
    world.load("statuses", f"A1,{OLD},20", f"A1,{NEW},30")
    seqno = world.submit("statuses", f"A1,{OLDER},40", f"A1,{OLD},50")
    with closing(db.connect(world.settings.database_url)) as other:
        due = {
            "history": "status_history",
            "first_day": FIRST,
            "domain_id": world.domain_id,
            "days": DAYS,
        }
        with transaction(other) as cursor:
            histories._let_go(cursor, due, trial=False)
            loader = World(world.connection, world.settings, world.folder)
            thread = threading.Thread(target=pipeline.work, args=(loader.worker, seqno))
            thread.start()
            wait_for_a_lock(world)
        thread.join(60)
        assert not thread.is_alive()
    told = [one["outcome"] for one in ledger.records(world.connection, seqno)]
    assert told == ["ignored", "historic"]
    assert world.history() == [(OLD, "20"), (OLD, "50"), (NEW, "30")]


# What goes on counting -----------------------------------------------------------------------------------------


def test_a_late_status_of_what_is_not_kept_is_ignored_and_says_so(world: World) -> None:
    world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30", f"A1,{NEW},20")
    world.let_go()
    again = world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30", f"A1,{NEW},20", f"A1,{OLDEST},40")
    assert again == [
        ("ignored", "before_history"),
        ("unchanged",),
        ("unchanged",),
        ("ignored", "before_history"),
    ]
    (reason,) = next(iter(ledger.records(world.connection, 2)))["reasons"]
    assert reason == {
        "rule": "before_history", "column": "Date Result", "value": OLDER,
        "message": f'The history of contract "A1" is not kept before {OLD}; nothing is entered there any more.'}  # fmt: skip
    # What comes between the last entry that is kept and the years that are: entered as ever.
    assert world.load("statuses", f"A1,{FIRST - timedelta(days=1)},50") == [("historic",)]
    assert world.history() == [(OLD, "30"), (str(FIRST - timedelta(days=1)), "50"), (NEW, "20")]


def test_a_contract_whose_last_status_is_old_goes_on_from_it(world: World) -> None:
    world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30")
    world.let_go()
    assert world.load("statuses", f"A1,{FIRST - timedelta(days=1)},20", f"A1,{NEW},50") == [
        ("updated",),
        ("updated",),
    ]
    assert [e.previous_code for e in world.contract().history] == [None, "30", "20"]


def test_a_new_contract_that_was_signed_long_ago_has_its_initial_status(world: World) -> None:
    world.load("statuses", f"A1,{OLD},20", f"A1,{NEW},20")
    world.let_go()
    assert world.load("contracts", f"N1,{OLDEST}") == [("created",)]
    assert world.load("statuses", f"N1,{OLDER},20") == [("updated",)]
    assert world.history("N1") == [(OLDEST, "10"), (OLDER, "20")]
    assert world.contract("N1").had == ()


def test_which_status_it_had_is_told_as_far_as_it_is_known(world: World) -> None:
    world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30", f"A1,{NEW},20")
    known = datetime.now(UTC)
    world.let_go()

    def on(day: date, known_at: datetime | None = None) -> str | None:
        found = contracts.status_as_of(world.connection, "OWN", "A1", day, known_at)
        return found.code if found else None

    assert on(FIRST) == "30"
    assert on(FIRST + timedelta(days=10), known) == "20"
    assert on(date.fromisoformat(OLD)) == "30"
    assert on(FIRST, datetime.now(UTC)) == "30"
    for day, at in ((date.fromisoformat(OLDER), None), (FIRST, known), (date.fromisoformat(OLDEST), known)):
        with pytest.raises(NotPossible, match=f'The history of contract "A1" is not kept before {OLD}: '):
            on(day, at)


def test_timers_know_what_a_contract_had(make_world: Callable[..., World]) -> None:
    world = make_world({"40": 1000, "50": 1010})  # for A1 both fall due in a year that is kept
    world.load("statuses", f"A1,{OLDER},50", f"A1,{OLD},20")
    world.let_go()
    due, upto = (date.fromisoformat(OLDEST) + timedelta(days=days) for days in (1000, 1010))
    given = {one.code: one.contracts for one in timers.give(world.connection, "OWN", upto)}
    assert given == {"40": 2, "50": 1}  # H1 both
    assert world.history() == [(OLD, "20"), (str(due), "40")]


def test_timers_give_nothing_where_the_history_is_not_kept(make_world: Callable[..., World]) -> None:
    world = make_world({"40": 5, "50": None})
    world.load("statuses", f"A1,{OLD},20")
    world.let_go()
    timers.give(world.connection, "OWN")
    assert world.history() == [(OLD, "20")]


# Roll backs ------------------------------------------------------------------------------------------------------


def test_a_roll_back_gives_a_contract_back_its_last_entry_that_is_kept(world: World) -> None:
    world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30")
    world.load("statuses", f"A1,{NEW},20")
    world.let_go()
    assert world.roll_back(2) == (1, 0)
    assert world.history() == [(OLD, "30")]
    assert ("A1", "30", OLD, 1, 2) in world.current()


def test_a_roll_back_spares_what_it_could_not_give_back(world: World) -> None:
    world.load("statuses", f"A1,{OLDER},20", f"A1,{OLD},30", f"G1,{NEWER},30")
    world.let_go()
    assert world.roll_back(1) == (1, 2)
    spared = [one["rolled_back"] for one in ledger.records(world.connection, 1)][:2]
    assert [roll_back.why_spared(one) for one in spared] == ["What it was before is not kept any more."] * 2
    assert world.history() == [(OLD, "30")]
    assert world.history("G1") == [(NEW, "10")]


def test_a_contract_that_was_created_and_had_statuses_stays(world: World) -> None:
    world.load("contracts", f"N1,{OLDER}")
    world.load("statuses", f"N1,{OLDEST},20")  # before it was signed
    world.let_go()
    assert world.history("N1") == [(OLDER, "10")]
    assert world.roll_back(1) == (0, 1)


# Subscriptions -----------------------------------------------------------------------------------------------------


def age(world: World, years: int) -> None:
    """As if all that happened to subscriptions had so many years ago."""
    world.run(f"""
        SELECT open_history('subscription_history', {world.domain_id}, array_agg((recorded_at - interval '{years} years')::date))
        FROM subscription_history;
        UPDATE subscription_history SET recorded_at = recorded_at - interval '{years} years';
        ALTER TABLE import_record DISABLE TRIGGER ALL;
        UPDATE import_record SET recorded_at = recorded_at - interval '{years} years';
        ALTER TABLE import_record ENABLE TRIGGER ALL""")


def test_of_each_list_a_contact_keeps_the_last_entry(world: World) -> None:
    world.load("contacts", "K1,Ash,NEWS|OFFERS,", "K2,Birch,NEWS,")
    world.load("contacts", "K1,Ash,,NEWS")
    age(world, 3)
    world.load("contacts", "K3,Cedar,NEWS,")
    assert world.lists() == [("NEWS", True), ("OFFERS", True), ("NEWS", False)]
    assert world.let_go() == {
        "years of the subscription history": 1, "entries of the subscription history": 1,
        "years of the status history": 1}  # fmt: skip
    assert world.lists() == [("OFFERS", True), ("NEWS", False)]
    assert contacts.profile(world.connection, "OWN", "K1", 9).history_kept_from == FIRST
    assert world.load("contacts", "K1,Ash,NEWS|OFFERS,") == [("unchanged",)]
    assert world.lists("K3") == [("NEWS", True)]
    assert world.let_go() == {}


def test_a_roll_back_spares_contacts_whose_subscriptions_before_are_not_kept(world: World) -> None:
    world.load("contacts", "K1,Ash,NEWS,")
    world.load("contacts", "K1,Ash,,NEWS")
    age(world, 3)
    world.load("contacts", "K1,Oak,OFFERS,", "K2,Birch,NEWS,")
    world.let_go()
    assert world.roll_back(3) == (2, 0)
    assert world.lists() == [("NEWS", False), ("OFFERS", True)]  # withdrawn, and told
    assert world.roll_back(2) == (0, 1)
    spared = [one["rolled_back"] for one in ledger.records(world.connection, 2)]
    assert [roll_back.why_spared(one) for one in spared] == ["What it was before is not kept any more."]


def test_who_is_forgotten_is_forgotten_in_all_years(world: World) -> None:
    world.load("contacts", "K1,Ash,NEWS,")
    age(world, 3)
    world.load("contacts", "K1,Ash,OFFERS,NEWS")
    world.let_go()
    with transaction(world.connection) as cursor:
        contact_id = row(cursor, "SELECT contact_id FROM contact")["contact_id"]
    erasure.erase(world.worker, "OWN", "K1")
    assert (
        world.rows(
            "SELECT FROM subscription_history WHERE contact_id = %(contact_id)s", contact_id=contact_id
        )
        == []
    )


# All in all --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_letting_go_changes_nothing_that_is_kept(make_world: Callable[..., World], seed: int) -> None:
    """Whatever comes after: the same current statuses and the same histories from the first day on as if all were kept."""
    automatic = {"40": 450, "50": 900}
    whole, kept = make_world(automatic), make_world(automatic)
    draw = random.Random(seed)
    forms = [f"N{number}" for number in range(12)]
    span = (date.fromisoformat(NEWER) - date.fromisoformat(OLDEST)).days

    def a_day() -> str:
        return str(date.fromisoformat(OLDEST) + timedelta(days=draw.randrange(span)))

    files = [("contracts", [f"{form},{a_day()}" for form in forms])]
    for _ in range(12):
        codes = draw.choices(["10", "20", "30", "40", "50", "90"], [4, 4, 4, 2, 2, 1], k=8)
        files.append(("statuses", [f"{draw.choice(forms)},{a_day()},{code}" for code in codes]))
    night = draw.randrange(3, 8)
    for number, (template, lines) in enumerate(files):
        for world in (whole, kept):
            world.load(template, *lines)
            if number % 4 == 3:
                timers.give(world.connection, "OWN", date.fromisoformat(NEWER))
        if number == night:
            assert kept.let_go()["entries of the status history"] > 0
    assert whole.current() == kept.current()
    query = """
        SELECT form_id, code, h.date_result::text, cause, h.seqno, h.record_no
        FROM status_history AS h JOIN contract USING (contract_id)
        JOIN contract_status AS s ON s.status_id = h.status_id
        WHERE h.domain_id = %(domain_id)s AND h.date_result >= %(first)s ORDER BY 1, 3, 5 NULLS FIRST, 6, history_id"""
    asked = {"first": FIRST, "domain_id": whole.domain_id}
    assert whole.rows(query, **asked) == kept.rows(query, **asked)
    for form in forms:
        for day in (FIRST, FIRST + timedelta(days=200)):
            one, other = (contracts.status_as_of(w.connection, "OWN", form, day) for w in (whole, kept))
            assert (one and (one.code, one.date_result)) == (other and (other.code, other.date_result))
    last = len(files)
    assert [world.roll_back(last) for world in (whole, kept)]
    assert whole.current() == kept.current()


# What there was before ---------------------------------------------------------------------------------------------

BEFORE = """
INSERT INTO domain (code, name) VALUES ('ONE', 'One'), ('TWO', 'Two');
INSERT INTO contract_phase (domain_id, code, description) SELECT domain_id, 'P', 'Phase' FROM domain;
INSERT INTO contract_status (domain_id, phase_id, code, description, initial)
SELECT domain_id, phase_id, '10', 'Signed', true FROM contract_phase;
INSERT INTO contract (domain_id, form_id, sign_up_date, status_id, date_result)
SELECT domain_id, 'A' || n, day, status_id, day
FROM contract_status, generate_series(1, 30) AS n, make_date(1990 + n, 6, 1) AS day;
INSERT INTO status_history (contract_id, status_id, date_result, cause)
SELECT contract_id, status_id, date_result, 'initial' FROM contract;
INSERT INTO status_history (contract_id, status_id, date_result, cause, seqno, record_no, withdrawn_at)
SELECT contract_id, status_id, date_result + 400, 'import', 7, contract_id, now() FROM contract;
INSERT INTO subscription (domain_id, list_id, name, type) SELECT domain_id, 'NEWS', 'News', 'email' FROM domain;
INSERT INTO contact (domain_id, external_id) SELECT domain_id, 'K' || n FROM domain, generate_series(1, 30) AS n;
INSERT INTO contact_subscription (contact_id, subscription_id, opted_in)
SELECT contact_id, subscription_id, true FROM contact JOIN subscription USING (domain_id);
INSERT INTO subscription_history (contact_id, subscription_id, opted_in, recorded_at)
SELECT contact_id, subscription_id, true, '2020-12-31 23:30+00'::timestamptz + contact_id * interval '1 minute'
FROM contact_subscription;
"""


def test_histories_of_before_are_kept_in_volumes_of_their_years(
    database_before: Callable[[str], AbstractContextManager[Connection]],
) -> None:
    histories = {
        "status_history": "SELECT * FROM status_history ORDER BY history_id",
        "subscription_history": "SELECT * FROM subscription_history ORDER BY history_id",
    }
    with database_before("0026") as connection:
        with transaction(connection) as cursor:
            cursor.execute(BEFORE)
            was = {name: rows(cursor, query) for name, query in histories.items()}
        assert "0026_histories.sql" in db.migrate(connection)
        with transaction(connection) as cursor:
            now = {name: rows(cursor, query) for name, query in histories.items()}
            domain_ids = {"status_history": "contract", "subscription_history": "contact"}
            for name, target in domain_ids.items():
                wrong = f"SELECT FROM {name} AS h JOIN {target} USING ({target}_id) WHERE h.domain_id <> {target}.domain_id"
                assert rows(cursor, wrong) == []
            years = rows(cursor, """
                SELECT history, domain_id, count(*) AS years, min(end_day)::text AS first FROM history_volume
                GROUP BY 1, 2 ORDER BY 1, 2""")  # fmt: skip
            cursor.execute(
                "INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)"
                " SELECT contract_id, domain_id, status_id, '2015-01-01', 'initial' FROM contract ORDER BY contract_id LIMIT 1"
            )
            newest = rows(cursor, "SELECT max(history_id) AS history_id FROM status_history")
    added = {"domain_id", "had"}
    for name in histories:
        assert [{k: v for k, v in one.items() if k not in added} for one in now[name]] == was[name]
    # What was before 2000 is one volume; the last entry is of 2021.
    assert [tuple(one.values()) for one in years] == [
        ("status_history", 1, 23, "2000-01-01"), ("status_history", 2, 23, "2000-01-01"),
        ("subscription_history", 1, 3, "2000-01-01"), ("subscription_history", 2, 3, "2000-01-01")]  # fmt: skip
    assert newest == [{"history_id": 121}]
