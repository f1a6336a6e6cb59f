"""Rule 9 of contract statuses: the initial status, and statuses given automatically after N days."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rowledger import batches, db, ledger, loading, pipeline, reference, suites, templates, timers, uploads
from rowledger.db import Connection, rows, transaction
from rowledger.errors import UnknownCode
from rowledger.reference import Reference
from rowledger.settings import Settings

Fresh = Callable[..., AbstractContextManager[str]]
SIGNED = date(2025, 3, 1)
_numbers = itertools.count(1)

STATUSES = """\
kind: contract_status
title: Statuses
file: {delimiter: ";", header: false, fields: 3}
columns:
  - {field: form_id, position: 1, title: Form ID, required: true, type: code}
  - {field: date_result, position: 2, title: Date Result, required: true, type: date, format: YYYY-MM-DD}
  - {field: result_code, position: 3, title: Result code, required: true, type: code}
"""


@pytest.fixture(scope="module")
def database_url(fresh_database: Fresh) -> Iterator[str]:
    """One database for all; every test has domains of its own."""
    with fresh_database() as url:
        yield url


class Place:
    """A domain of its own: its contracts signed on SIGNED, its imports, its timers."""

    def __init__(
        self, connection: Connection, settings: Settings, folder: Path, automatic: dict[str, int], contracts: int = 1
    ) -> None:  # fmt: skip
        self.connection, self.settings, self.folder = connection, settings, folder
        self.code = f"TIMED-{next(_numbers)}"
        self.load({"statuses": [
            {"code": "10", "initial": True}, {"code": "20"}, {"code": "30"}, {"code": "90", "definitive": True},
            *({"code": code, "automatic_after_days": days, "definitive": code.startswith("9")}
              for code, days in automatic.items()),
        ], "contracts": [{"form_id": f"F{n}", "sign_up_date": SIGNED} for n in range(1, contracts + 1)]})  # fmt: skip

    def load(self, parts: dict[str, Any]) -> None:
        statuses = [
            {"phase": "NEW", "description": f"Status {s['code']}"} | s for s in parts.pop("statuses", [])
        ]
        phases = [{"code": "NEW", "description": "New"}]
        domain = {"code": self.code, "name": "Timed", "phases": phases, "statuses": statuses} | parts
        reference.load(self.connection, Reference.model_validate({"domains": [domain]}))

    def give(self, day: date | int, size: int = 20_000) -> dict[str, int]:
        """Run the timers as on a day, or so many days after sign-up; tells how many contracts got which code."""
        upto = day if isinstance(day, date) else SIGNED + timedelta(days=day)
        return {g.code: g.contracts for g in timers.give(self.connection, self.code, upto, size)}

    def apply(self, *lines: str) -> list[str]:
        """Import lines like ``F1 5 20``, dated so many days after sign-up; tells what became of each."""
        path = self.folder / f"{next(_numbers)}.csv"
        records = [line.split() for line in lines]
        path.write_text(
            "".join(f"{form};{SIGNED + timedelta(int(day))};{code}\n" for form, day, code in records)
        )
        template = _template()
        seqno = batches.register(
            self.connection, uploads.keep_file(path, self.settings.uploads), template, suites.suite_hash(template),
            self.code, by="tester", through="command line", again=True,
        )  # fmt: skip
        pipeline.work(pipeline.Worker(self.connection, self.settings, "tester"), seqno)
        return [record["outcome"] for record in ledger.records(self.connection, seqno)]

    def history(self, form_id: str = "F1") -> list[tuple[Any, ...]]:
        """The chain as (days after sign-up, code, cause, code before)."""
        return [told[1:] for told in self.histories() if told[0] == form_id]

    def histories(self) -> list[tuple[Any, ...]]:
        found = self._rows("""
            SELECT form_id, h.date_result - %(signed)s AS day, s.code, cause, p.code AS before
            FROM status_chain AS h JOIN contract USING (contract_id, domain_id) JOIN domain USING (domain_id)
            JOIN contract_status AS s ON s.status_id = h.status_id
            LEFT JOIN contract_status AS p ON p.status_id = previous_status_id
            WHERE domain.code = %(domain)s
            ORDER BY form_id, h.date_result, h.seqno NULLS FIRST, h.record_no, history_id""")  # fmt: skip
        return [tuple(r.values()) for r in found]

    def current(self) -> dict[str, tuple[str, int]]:
        """Form id -> current status and its days after sign-up."""
        found = self._rows("""
            SELECT form_id, s.code, date_result - %(signed)s AS day
            FROM contract JOIN domain USING (domain_id) JOIN contract_status AS s USING (status_id)
            WHERE domain.code = %(domain)s""")  # fmt: skip
        return {r["form_id"]: (r["code"], r["day"]) for r in found}

    def _rows(self, query: str) -> list[dict[str, Any]]:
        with transaction(self.connection) as cursor:
            return rows(cursor, query, {"domain": self.code, "signed": SIGNED})


@functools.cache
def _template() -> templates.ImportTemplate:
    return templates.parse_template(STATUSES, "timed", loading.kinds(), "timed")


@pytest.fixture
def place(
    connection: Connection, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Place]]:
    """Makes places; in the end every invariant of the database holds."""
    # Reading a template and deriving its suite take longer than working such a file off, and each comes many times.
    judge = functools.cache(suites.judge)
    monkeypatch.setattr(suites, "judge", lambda template: judge(template))
    monkeypatch.setattr(pipeline, "template_of", lambda connection, batch: _template())
    yield lambda automatic, contracts=1: Place(connection, settings, tmp_path, automatic, contracts)
    assert [check for check in ledger.check(connection) if check["violations"]] == []


New = Callable[..., Place]


def test_rule_9_a_new_contract_gets_the_initial_status_once(place: New) -> None:
    here = place({})
    for _ in range(2):
        here.load({"contracts": [{"form_id": "F1", "sign_up_date": SIGNED}]})
        assert here.history() == [(0, "10", "initial", None)]
        assert here.current() == {"F1": ("10", 0)}


def test_rule_9_a_status_is_given_after_its_days_and_not_before(place: New) -> None:
    here = place({"35": 30})
    assert here.give(29) == {}
    assert here.give(30) == {"35": 1}
    assert here.history() == [(0, "10", "initial", None), (30, "35", "timer", "10")]
    assert here.current() == {"F1": ("35", 30)}


def test_rule_9_a_late_run_dates_the_status_as_a_punctual_one(place: New) -> None:
    here = place({"35": 30})
    assert here.give(300) == {"35": 1}
    assert here.history() == [(0, "10", "initial", None), (30, "35", "timer", "10")]


def test_rule_9_running_it_twice_changes_nothing_more(place: New) -> None:
    here = place({"35": 30, "45": 60}, contracts=3)
    assert here.give(100) == {"35": 3, "45": 3}
    before = here.histories()
    assert here.give(100) == {}
    assert here.give(400) == {}
    assert here.histories() == before


def test_rule_9_nothing_is_given_to_a_contract_at_a_definitive_status(place: New) -> None:
    here = place({"35": 30}, contracts=2)
    here.apply("F1 20 90")
    assert here.give(40) == {"35": 1}
    assert here.current() == {"F1": ("90", 20), "F2": ("35", 30)}


def test_rule_9_a_contract_that_ended_after_the_day_is_given_the_status_below_its_end(place: New) -> None:
    """A daily run would have given it; the current status stays."""
    here = place({"35": 30})
    here.apply("F1 31 90")
    assert here.give(40) == {"35": 1}
    assert here.history() == [
        (0, "10", "initial", None),
        (30, "35", "timer", "10"),
        (31, "90", "import", "35"),
    ]
    assert here.current() == {"F1": ("90", 31)}


def test_rule_9_a_definitive_status_that_came_late_counts_for_its_day(place: New) -> None:
    here = place({"35": 30})
    here.apply("F1 40 20")
    assert here.apply("F1 20 90") == ["historic"]
    assert here.give(50) == {}
    assert here.current() == {"F1": ("20", 40)}


def test_rule_9_of_one_day_what_was_given_first_stands_first(place: New) -> None:
    """A status that is made automatic later, and falls due on a day on which another was given."""
    here, ended = place({"45": 30}), place({"95": 30})
    for one in (here, ended):
        one.give(30)
        one.load({"statuses": [{"code": "35", "automatic_after_days": 30}]})
    assert here.give(40) == {"35": 1}
    assert here.history()[1:] == [(30, "45", "timer", "10"), (30, "35", "timer", "45")]
    assert here.current() == {"F1": ("35", 30)}
    assert ended.give(40) == {}


def test_rule_9_nothing_is_given_that_the_contract_has_had_before(place: New) -> None:
    here = place({"35": 30})
    here.apply("F1 10 35", "F1 20 20")
    assert here.give(40) == {}
    assert here.current() == {"F1": ("20", 20)}


def test_rule_9_what_the_contract_got_later_was_not_had_before(place: New) -> None:
    here = place({"35": 30})
    here.apply("F1 33 35")
    assert here.give(40) == {"35": 1}
    assert here.history()[1:] == [(30, "35", "timer", "10"), (33, "35", "import", "35")]


def test_rule_9_an_import_that_says_the_same_of_the_day_stands_for_it(place: New) -> None:
    here = place({"35": 30})
    here.apply("F1 30 35")
    assert here.give(40) == {}


def test_rule_9_of_one_day_the_timer_comes_before_the_imports(place: New) -> None:
    punctual, late = place({"35": 30}), place({"35": 30})
    punctual.give(30)
    assert punctual.apply("F1 30 20") == late.apply("F1 30 20") == ["updated"]
    late.give(31)
    assert late.history() == punctual.history()
    assert late.history()[1:] == [(30, "35", "timer", "10"), (30, "20", "import", "35")]
    assert late.current() == punctual.current() == {"F1": ("20", 30)}


def test_rule_9_several_that_are_due_are_given_in_the_order_of_their_days(place: New) -> None:
    here = place({"45": 30, "35": 60, "40": 60})
    assert here.give(90) == {"45": 1, "35": 1, "40": 1}
    assert here.history()[1:] == [
        (30, "45", "timer", "10"),
        (60, "35", "timer", "45"),
        (60, "40", "timer", "35"),
    ]
    assert here.current() == {"F1": ("40", 60)}


def test_rule_9_a_definitive_status_that_is_due_ends_the_contract_for_later_ones(place: New) -> None:
    here = place({"35": 20, "95": 30, "45": 40, "96": 50})
    assert here.give(90) == {"35": 1, "95": 1}
    assert here.current() == {"F1": ("95", 30)}


def test_rule_9_a_definitive_status_of_a_past_day_does_not_end_what_was_imported_since(place: New) -> None:
    here = place({"95": 30, "96": 35, "45": 40})
    here.apply("F1 38 20")
    assert here.give(90) == {"95": 1, "45": 1}
    assert [told[:2] for told in here.history()] == [(0, "10"), (30, "95"), (38, "20"), (40, "45")]


def test_rule_9_a_corrected_sign_up_date_gives_nothing_twice(place: New) -> None:
    here = place({"35": 30, "45": 60}, contracts=2)
    here.give(30)
    here.load({"contracts": [
        {"form_id": "F1", "sign_up_date": SIGNED - timedelta(10)}, {"form_id": "F2", "sign_up_date": SIGNED + timedelta(10)},
    ]})  # fmt: skip
    assert here.give(100) == {"45": 2}
    assert [told[:2] for told in here.history("F1")] == [(0, "10"), (30, "35"), (50, "45")]
    assert [told[:2] for told in here.history("F2")] == [(0, "10"), (30, "35"), (70, "45")]


def test_rule_9_a_contract_without_any_status_is_given_one_too(place: New) -> None:
    here = place({"35": 30})
    with transaction(
        here.connection
    ) as cursor:  # as in a domain that had no initial status when it was registered
        cursor.execute("""INSERT INTO contract (domain_id, form_id, sign_up_date)
                          SELECT domain_id, 'G1', %s FROM domain WHERE code = %s""", (SIGNED, here.code))  # fmt: skip
    assert here.give(30) == {"35": 2}
    assert here.history("G1") == [(30, "35", "timer", None)]


def test_rule_9_retired_statuses_and_domains_are_not_given(place: New) -> None:
    here = place({"35": 30, "45": 60})
    with transaction(here.connection) as cursor:
        cursor.execute("""UPDATE contract_status SET retired = true
                          WHERE code = '35' AND domain_id = (SELECT domain_id FROM domain WHERE code = %s)""", (here.code,))  # fmt: skip
    assert here.give(70) == {"45": 1}
    gone = place({"35": 30})
    with transaction(here.connection) as cursor:
        cursor.execute("UPDATE domain SET retired = true WHERE code = %s", (gone.code,))
    assert gone.give(70) == {}


def test_rule_9_a_run_gives_to_its_domain_only_or_to_all(place: New) -> None:
    one, other = place({"35": 30}), place({"35": 30})
    assert one.give(30) == {"35": 1}
    assert other.current() == {"F1": ("10", 0)}
    given = timers.give(one.connection, upto=SIGNED + timedelta(30))
    assert (other.code, "35", 1) in {(g.domain, g.code, g.contracts) for g in given}
    with pytest.raises(UnknownCode, match=r'There is no domain "NONE"\. Domains are: DEMO, '):
        timers.give(one.connection, "NONE")


def test_rule_9_without_a_day_it_gives_what_is_due_today(place: New, connection: Connection) -> None:
    today = datetime.now(UTC).date()
    here = place({"35": 30})
    here.load({"contracts": [
        {"form_id": "T1", "sign_up_date": today - timedelta(30)}, {"form_id": "T2", "sign_up_date": today - timedelta(29)},
    ]})  # fmt: skip
    (given,) = timers.give(connection, here.code)
    assert (given.code, given.contracts, given.current) == ("35", 2, 2)
    assert here.current()["T2"] == ("10", (today - SIGNED).days - 29)


def test_what_was_given_is_told_with_how_many_it_moved(place: New) -> None:
    here = place({"35": 30}, contracts=3)
    here.apply("F1 40 20")
    assert timers.give(here.connection, here.code, SIGNED + timedelta(50), size=1) == [
        timers.Given(here.code, "35", "Status 35", contracts=3, current=2)
    ]


@pytest.mark.parametrize("world", range(2))
def test_an_outage_of_the_timers_changes_nothing(world: int, place: New) -> None:
    """Random contracts, imports that arrive on their date: daily runs, one late run, runs now and then end alike."""
    draw = random.Random(world)
    automatic = {"35": 4, "45": 9, "46": 9, "55": 12}
    daily, late, rare = (place(automatic, contracts=1) for _ in range(3))
    signed = {f"G{n}": draw.randrange(8) for n in range(40)}
    dates = [{"form_id": f, "sign_up_date": SIGNED + timedelta(d)} for f, d in signed.items()]
    for here in (daily, late, rare):
        here.load({"contracts": dates})
    due = {(form, code): day + days for form, day in signed.items() for code, days in automatic.items()}
    for day in range(22):
        daily.give(day)
        if draw.random() < 0.15:
            rare.give(day, size=draw.choice([1, 7, 1000]))
        if day % 4:
            continue
        lines = [
            f"{form} {day} {code}"
            for form, code in zip(
                draw.choices(list(signed), k=30),
                draw.choices(["20", "30", "35", "45", "46", "90"], [5, 5, 2, 2, 2, 1], k=30),
                strict=True,
            )
            if due.get((form, code))
            != day  # who says the same of the same day stands for the other: order matters
        ]
        assert daily.apply(*lines) == late.apply(*lines) == rare.apply(*lines)
    assert daily.give(30) == {}
    assert late.give(30)
    rare.give(30, size=3)
    assert late.histories() == daily.histories()
    assert rare.histories() == daily.histories()
    assert late.current() == rare.current() == daily.current()
    assert {told[3] for told in daily.histories()} == {"initial", "import", "timer"}


def test_two_runs_at_once_give_once(place: New, database_url: str) -> None:
    here = place({"35": 10, "45": 20, "95": 30}, contracts=60)
    here.apply("F1 15 90", "F2 12 45", "F3 25 20")
    given: list[timers.Given] = []

    def run() -> None:
        with closing(db.connect(database_url)) as own:
            given.extend(timers.give(own, here.code, SIGNED + timedelta(40), size=3))

    runs = [threading.Thread(target=run) for _ in range(4)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    told = {code: sum(g.contracts for g in given if g.code == code) for code in ("35", "45", "95")}
    assert told == {"35": 60, "45": 58, "95": 59}
    assert here.current()["F1"] == ("90", 15)


def test_a_run_that_broke_off_is_completed_by_the_next(place: New, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place({"35": 10, "45": 20}, contracts=9)
    give_chunk, calls = timers._give_chunk, itertools.count(1)

    def broken(*args: Any) -> Any:
        done = give_chunk(*args)
        if next(calls) == 2:
            raise RuntimeError
        return done

    monkeypatch.setattr(timers, "_give_chunk", broken)
    with contextlib.suppress(RuntimeError):
        here.give(30, size=3)
    monkeypatch.undo()
    assert (
        len([told for told in here.histories() if told[3] == "timer"]) == 2 * 3
    )  # the second chunk is undone
    assert here.give(30, size=3) == {"35": 6, "45": 6}


def test_an_import_waits_for_a_run_that_gives_to_its_contracts(place: New, database_url: str) -> None:
    """Neither loses what the other writes: the import sees the status that was given meanwhile."""
    here = place({"35": 30})
    became: list[list[str]] = []

    def bring() -> None:
        with closing(db.connect(database_url)) as own:
            other = copy.copy(here)
            other.connection = own
            became.append(other.apply("F1 29 20"))

    with closing(db.connect(database_url)) as giving:
        with transaction(giving) as cursor:
            domain = timers._domains(cursor, here.code)[0]
            cursor.execute(
                timers._with_due("find", timers._ALL), {"domain": here.code, "day": SIGNED + timedelta(40)}
            )
            assert timers._give_chunk(cursor, domain, 0, SIGNED + timedelta(40), 10)[0]
            importing = threading.Thread(target=bring)
            importing.start()
            waits = "SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            while importing.is_alive() and not rows(cursor, waits):
                time.sleep(0.05)
        importing.join()
        assert became == [["historic"]]
        assert here.history()[1:] == [(29, "20", "import", "10"), (30, "35", "timer", "20")]
        assert here.current() == {"F1": ("35", 30)}


def test_a_forecast_says_what_the_run_of_that_day_gives_and_writes_nothing(
    place: New, connection: Connection
) -> None:
    today = datetime.now(UTC).date()
    here = place({"35": 30, "45": 33, "95": 34, "46": 35})
    signed = {"A": 31, "B": 28, "C": 26, "D": 40, "E": 10}
    here.load(
        {"contracts": [{"form_id": f, "sign_up_date": today - timedelta(d)} for f, d in signed.items()]}
    )
    here.give(today - timedelta(5))
    before = here.histories()
    told = [
        (f["form_id"], (f["due"] - today).days, f["previous_code"], f["code"], f["historic"])
        for f in timers.forecast(connection, 7, here.code)
    ]
    assert told == [
        ("A", -1, "10", "35", False), ("B", 2, "10", "35", False), ("A", 2, "35", "45", False),
        ("A", 3, "45", "95", False), ("C", 4, "10", "35", False), ("B", 5, "35", "45", False),
        ("B", 6, "45", "95", False), ("C", 7, "35", "45", False),
    ]  # fmt: skip
    assert here.histories() == before
    by_day = {
        (f["given_on"], f["code"]): f["contracts"] for f in timers.forecast_by_day(connection, 7, here.code)
    }
    assert by_day[today, "35"] == by_day[today + timedelta(2), "35"] == 1
    with db.trial(connection):  # nobody gives a status before its day
        given = here.give(today + timedelta(7))
        assert list(timers.forecast(connection, 7, here.code)) == []
    assert sum(given.values()) == len(told) == sum(by_day.values())
