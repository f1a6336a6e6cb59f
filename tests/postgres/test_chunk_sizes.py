"""What becomes of a file never depends on how it is cut: two databases see the same files, one whole, one in
chunks, lanes and parts."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import batches, db, ledger, loading, pipeline, reference, replay, suites, templates, uploads
from rowledger.db import Connection
from rowledger.errors import FileError
from rowledger.settings import Settings

Contents = Callable[[Connection], dict[str, list[Any]]]
WHOLE = 10**9
CODES = ("10", "20", "20", "30", "30", "90")
_numbers = itertools.count(1)

STATUSES = """\
kind: contract_status
title: Statuses
file: {delimiter: ";", header: false, fields: 3}
columns:
  - {field: form_id, position: 1, title: Form ID, required: true, type: code}
  - {field: date_result, position: 2, title: Date Result, required: true, type: date, format: DD-MM-YYYY}
  - {field: result_code, position: 3, title: Result code, required: true, type: code}
"""
CONTACTS = """\
kind: contact
title: Contacts
file: {header: false}
columns:
  - {field: external_id, position: 1, title: Number, type: code}
  - {field: email, position: 2, title: E-mail, type: email}
  - {field: last_name, position: 3, title: Name, max_length: 8}
  - {field: phone, position: 4, title: Phone, type: phone, region: DE, severity: warn}
  - {field: city, position: 5, title: City, on_update: fill_if_empty, unique: true, severity: warn}
"""
WIDE = (
    CONTACTS
    + """\
  - {field: roles, position: 6, title: Roles, type: list, separator: "|", on_update: add, clear: "-"}
  - {field: lead, position: 7, title: Lead, type: boolean, words: {"true": ["yes"], "false": ["no"]}, clear: "-"}
  - {field: attributes.card, position: 8, title: Card, type: number, clear: "-"}
  - {field: attributes.tags, position: 9, title: Tags, type: list, separator: "|"}
  - {field: origins, position: 10, title: Origins, type: list, separator: "|"}
  - {field: subscriptions, position: 11, title: Lists, type: list, separator: "|"}
  - {field: opt_outs, position: 12, title: Out, type: list, separator: "|"}
"""
)
# What the columns of WIDE that CONTACTS does not have may hold.
MORE = (["a", "b|a", "c", "-", ""], ["yes", "no", "-", ""], ["1", "2.50", "-", "", "x"], ["red", "red|blue", ""],
        ["WEB", "WEB|FAIR", "", "", "OLD"], ["NEWS", "OFFERS|NEWS", "", ""], ["NEWS", "GONE", "", "", "", ""])  # fmt: skip
CONTRACTS = """\
kind: contract
title: Contracts
file: {delimiter: ";", header: false, fields: 3}
columns:
  - {field: form_id, position: 1, title: Form ID, required: true, type: code}
  - {field: sign_up_date, position: 2, title: Signed, required: true, type: date, format: DD-MM-YYYY}
  - {field: contact, position: 3, title: Customer, clear: "-"}
"""
TEMPLATES = {
    "statuses": STATUSES,
    "statuses_strict": STATUSES + "policies: {unknown_contract: ignore, unknown_status: reject, future_dates: allow}\n",
    "statuses_parking": STATUSES + "policies: {unknown_contract: park, unknown_status: park}\n",
    "contacts": CONTACTS,
    "contacts_by_email_first": WIDE + "policies: {match: [email, external_id]}\n",
    "contacts_by_number": WIDE + "policies: {match: [external_id]}\n",
    "contacts_by_email": CONTACTS + "policies: {match: [email]}\n",
    "contacts_create_only": WIDE + "policies: {mode: create_only}\n",
    "contacts_update_only": WIDE + "policies: {mode: update_only}\n",
}  # fmt: skip
REGISTERS = {
    "contracts_update_only": CONTRACTS + "policies: {mode: update_only}\n",
    "contracts": CONTRACTS,
    "contracts_loose": CONTRACTS + "policies: {unknown_contact: ignore, future_dates: allow}\n",
    "contracts_create_only": CONTRACTS + "policies: {mode: create_only}\n",
}

# About the same contacts, but each filling fields that the others leave alone, or lists that are only added to.
PARTS = {
    name: "kind: contact\ntitle: Part\nfile: {header: false}\ncolumns:\n"
    "  - {field: external_id, position: 1, title: Number, type: code}\n" + columns
    for name, columns in {
        "part_name": "  - {field: last_name, position: 2, title: Name}\n"
        "  - {field: city, position: 3, title: City, clear: '-'}\n",
        "part_card": "  - {field: attributes.card, position: 2, title: Card, type: number, clear: '-'}\n"
        "  - {field: phone, position: 3, title: Phone, type: phone, region: DE, on_update: fill_if_empty}\n",
        "part_lists": "  - {field: roles, position: 2, title: Roles, type: list, separator: '|', on_update: add}\n"
        "  - {field: attributes.tags, position: 3, title: Tags, type: list, separator: '|', on_update: add}\n"
        "  - {field: origins, position: 4, title: Origins, type: list, separator: '|'}\n"
        "  - {field: subscriptions, position: 5, title: Lists, type: list, separator: '|'}\n"
        "  - {field: opt_outs, position: 6, title: Out, type: list, separator: '|'}\n",
    }.items()
}


@dataclass(frozen=True)
class File:
    template: str
    content: str
    options: dict[str, tuple[str, ...]]


def status_file(draw: random.Random, template: str, size: int, world: int) -> File:
    """Statuses of a few contracts in any order: late ones, definitive ones, repeats, unknown ones, wrong lines."""
    lines = []
    for _ in range(size):
        form = draw.choice([f"F{draw.randint(1, min(world, 60))}"] * 9 + [f"X{draw.randint(1, 9)}"])
        year = draw.choice([2025, 2025, 2025, 2026, 2099])
        line = f"{form};{draw.randint(1, 4):02}-{draw.randint(1, 2):02}-{year};{draw.choice([*CODES, f'7{draw.randint(1, 9)}'])}"
        lines.append(
            draw.choice([line] * 12 + [f"{form};31-02-2025;20", f"{form};;20", f"{form};20", "", line[:-1]])
        )
        if draw.random() < 0.2:
            lines.append(draw.choice(lines))
    return File(template, "\n".join(lines) + "\n", {})


def contract_file(draw: random.Random, template: str, size: int, world: int) -> File:
    """Contracts old and new, of contacts that exist or not: corrections, repeats, later words, wrong lines."""
    lines = []
    for _ in range(size):
        form = draw.choice([f"F{draw.randint(1, min(world, 60))}", f"N{draw.randint(1, world)}"])
        signed = f"0{draw.randint(1, 2)}-12-{draw.choice([2024, 2024, 2024, 2024, 2099])}"
        contact = draw.choice(["", "", "-", f"K{draw.randint(1, world)}"])
        line = f"{form};{signed};{contact}"
        lines.append(
            draw.choice([line] * 12 + [f"{form};31-02-2025;", f";{signed};", f"{form};{signed}", ""])
        )
        if draw.random() < 0.2:
            lines.append(draw.choice(lines))
    return File(template, "\n".join(lines) + "\n", {})


def contact_file(draw: random.Random, template: str, size: int, world: int) -> File:
    """Contacts whose two keys agree, cross, repeat and are missing."""
    lines = []
    for _ in range(size):
        number = draw.randint(1, world)
        other = number if draw.random() < 0.6 else draw.randint(1, world)
        key = draw.choice([f"K{number}"] * 4 + ["", "k 1"])
        email = draw.choice([f"e{other}@example.com"] * 4 + [f"E{other}@Example.com", "", "wrong"])
        name = draw.choice(["Adams", "Bauer", "", "Far too long"]) if draw.random() < 0.5 else "Adams"
        phone, city = draw.choice(["", "030 123456", "12"]), draw.choice(["", "", "Ulm", "Jena", "Bonn"])
        cells = [key, email, name, phone, city]
        if TEMPLATES[template].startswith(WIDE):
            cells += map(draw.choice, MORE)
        lines.append(draw.choice([",".join(cells)] * 12 + [key, f"{key}{',' * len(cells)}", ""]))
        if draw.random() < 0.2:
            lines.append(draw.choice(lines))
    options = {}
    if draw.random() < 0.3:
        options = {"origins": tuple(draw.sample(["WEB", "FAIR"], draw.randint(1, 2)))}
    if draw.random() < 0.3:
        options |= {"subscriptions": tuple(draw.sample(["NEWS", "OFFERS"], draw.randint(1, 2)))}
    return File(template, "\n".join(lines) + "\n", options)


class Place:
    """A database of its own, and a worker that cuts files its way."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self.settings = settings

    def submit(self, file: File, path: Path) -> int:
        template = _template(file.template)
        upload = uploads.keep_file(path, self.settings.uploads)
        return batches.register(self.connection, upload, template, suites.suite_hash(template), "DEMO", by="tester",
                                through="command line", again=True, **file.options)  # fmt: skip

    def work(self, file: File, path: Path) -> list[Any]:
        """Work a file off; returns its ledger."""
        seqno = self.submit(file, path)
        worker = pipeline.Worker(self.connection, self.settings, "tester")
        parts = batches.shared_out(
            self.connection, [seqno], self.settings.part_bytes, self.settings.max_parts, 99, 60
        )
        with contextlib.suppress(FileError):
            if len(parts) == 1:
                pipeline.work(worker, seqno)
            else:
                self._work_in_parts(worker, seqno, len(parts))
        batch = batches.get(self.connection, seqno)
        rows = [
            [row["record_no"], row["outcome"], row["reasons"], row["warnings"], row["raw"]]
            for row in ledger.records(self.connection, seqno)
        ]
        return [batch.succeeded, batch.error_message, batch.counts, *rows]

    def _work_in_parts(self, worker: pipeline.Worker, seqno: int, parts: int) -> None:
        """Side by side, each with a connection of its own, as the tasks of a run do."""
        for step in (pipeline.validate, pipeline.load):
            with contextlib.ExitStack() as stack, ThreadPoolExecutor(parts) as pool:
                workers = [
                    replace(stack.enter_context(worker.another()), part=part + 1) for part in range(parts)
                ]
                for ended in [pool.submit(step, one, seqno) for one in workers]:
                    ended.result()
        pipeline.close(replace(worker, part=1), seqno)

    def create(self, form_id: str, code: str) -> None:
        """A contract and a code that records wait for."""
        contract = reference.Contract(form_id=form_id, sign_up_date="2024-12-01")  # type: ignore[arg-type]
        status = reference.Status(code=code, phase="NEW", description="New", definitive=code == "75")
        domain = reference.Domain(code="DEMO", name="Demo", contracts=(contract,), statuses=(status,))
        reference.load(self.connection, reference.Reference(domains=(domain,)))

    def replay(self) -> dict[int, Counter[str]]:
        return replay.replay(pipeline.Worker(self.connection, self.settings, "tester"))

    def opt_out(self) -> None:
        """Some contacts leave a list; an import may not bring them back."""
        with db.transaction(self.connection) as cursor:
            cursor.execute("""
                WITH gone AS (
                    INSERT INTO contact_subscription (contact_id, subscription_id, opted_in)
                    SELECT contact_id, subscription_id, false FROM contact CROSS JOIN subscription
                    WHERE list_id = 'NEWS' AND subscription.domain_id = contact.domain_id
                      AND right(external_id, 1) IN ('1', '4')
                    ON CONFLICT (contact_id, subscription_id) DO UPDATE SET opted_in = false
                    WHERE contact_subscription.opted_in
                    RETURNING contact_id, subscription_id
                )
                INSERT INTO subscription_history (contact_id, domain_id, subscription_id, opted_in)
                SELECT contact_id, domain_id, subscription_id, false FROM gone JOIN contact USING (contact_id)""")


def differences(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> list[Any]:
    """Rows that only one of two databases has."""
    pairs = [(one[name], other[name]) for name in one if one[name] != other[name]]
    return [[row for row in a if row not in b] + [row for row in b if row not in a] for a, b in pairs]


@pytest.fixture
def places(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Place]]:
    """Two fresh databases with the same 60 contracts."""
    # Reading a template and deriving its suite take longer than working such a file off, and each comes many times.
    judge = functools.cache(lambda template, name: real(template))
    real, own = suites.judge, threading.current_thread
    monkeypatch.setattr(suites, "judge", lambda template: judge(template, own().name.rpartition("_")[2]))
    monkeypatch.setattr(pipeline, "template_of", lambda connection, batch: _template(batch.template))
    contracts = tuple(reference.Contract(form_id=f"F{n}", sign_up_date="2024-12-01") for n in range(1, 61))  # type: ignore[arg-type]
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(2):
            name = f"cut_{next(_numbers)}"
            _execute(server, f"CREATE DATABASE {name} TEMPLATE migrated STRATEGY wal_log")
            stack.callback(_execute, server, f"DROP DATABASE {name} WITH (FORCE)")
            connection = stack.enter_context(contextlib.closing(db.connect(server.get_uri(name))))
            domain = reference.Domain(code="DEMO", name="Demo", contracts=contracts)
            reference.load(connection, reference.Reference(domains=(domain,)))
            settings = Settings(tmp_path / name, tmp_path, validate_chunk=WHOLE, load_chunk=WHOLE)
            found.append(Place(connection, settings))
        yield found


@functools.cache
def _template(name: str) -> templates.ImportTemplate:
    return templates.parse_template((TEMPLATES | PARTS | REGISTERS)[name], name, loading.kinds(), name)


def _execute(server: Any, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(server.get_uri("postgres"))) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


@pytest.mark.parametrize(
    ("validate", "load", "parts", "files", "size", "world"),
    [
        pytest.param(1, 1, 1, 9, 7, 3, id="record by record"),
        pytest.param(7, 1, 1, 45, 10, 4, id="validated by 7, loaded by 1"),
        pytest.param(WHOLE, 7, 1, 48, 40, 9, id="loaded by 7"),
        pytest.param(500, 500, 1, 9, 1200, 400, id="by 500"),
        pytest.param(7, 7, 3, 18, 40, 9, id="in 3 parts"),
        pytest.param(100, 100, 2, 9, 1200, 400, id="in 2 parts by 100"),
    ],
)
def test_files_cut_into_chunks_end_as_files_taken_whole(
    places: list[Place],
    contents: Contents,
    tmp_path: Path,
    validate: int,
    load: int,
    parts: int,
    files: int,
    size: int,
    world: int,
) -> None:
    whole, cut = places
    cut.settings = replace(
        cut.settings, validate_chunk=validate, load_chunk=load, load_lanes=3, part_bytes=1, max_parts=parts
    )
    draw = random.Random(f"{validate} {load}")
    rules, outcomes = set(), set()
    replayed: Counter[str] = Counter()
    for number in range(files):
        template = list(TEMPLATES)[number % len(TEMPLATES)]
        make = status_file if template.startswith("statuses") else contact_file
        file = make(draw, template, draw.randint(1, size) if size < 100 else size, world)
        path = tmp_path / f"{number}.csv"
        path.write_text(file.content)
        expected, found = whole.work(file, path), cut.work(file, path)
        assert found == expected, f"file {number} ({template}, {file.options}):\n{file.content[:2000]}"
        assert differences(contents(whole.connection), contents(cut.connection)) == [], (
            f"file {number} ({template}):\n{file.content[:2000]}"
        )
        outcomes |= {row[1] for row in expected[3:]}
        rules |= {reason["rule"] for row in expected[3:] for reason in (*(row[2] or ()), *(row[3] or ()))}
        if number % 4 == 3 and number < 36:  # the last of what is parked waits for ever
            for place in places:
                place.create(f"X{number // 4 + 1}", f"7{number // 4 + 1}")
            counts = whole.replay()
            assert cut.replay() == counts
            replayed += sum(counts.values(), Counter())
        if number % 7 == 5:
            whole.opt_out()
            cut.opt_out()
    for place in places:
        assert [one for one in ledger.check(place.connection) if one["violations"]] == []
    if size > 10 and parts == 1:  # enough to meet every rule
        assert outcomes == {"created", "updated", "unchanged", "historic", "ignored", "parked", "rejected"}
        assert {"updated", "historic", "parked", "rejected"} <= set(replayed)
        assert {"definitive_status", "duplicate_in_file", "superseded_in_file", "conflicting_keys", "unknown_contract",
                "unknown_status", "missing_key", "too_few_fields", "unique", "opted_out_kept", "exists_already",
                "unknown_contact", "not_in_set"} <= rules  # fmt: skip


@pytest.mark.parametrize("load", [1, 7])
def test_files_of_contracts_cut_into_chunks_end_as_files_taken_whole(
    places: list[Place], contents: Contents, tmp_path: Path, load: int
) -> None:
    whole, cut = places
    cut.settings = replace(cut.settings, validate_chunk=load, load_chunk=load, load_lanes=3)
    draw = random.Random(load)
    files = [File("contacts", "".join(f"K{n},,Adams,,\n" for n in range(1, 6)), {})]
    files += [contract_file(draw, template, 25, 9) for template in [*REGISTERS] * 3]
    found = set()
    for number, file in enumerate(files):
        path = tmp_path / f"{number}.csv"
        path.write_text(file.content)
        expected = whole.work(file, path)
        assert cut.work(file, path) == expected, f"file {number} ({file.template}):\n{file.content}"
        assert differences(contents(whole.connection), contents(cut.connection)) == []
        found |= {row[1] for row in expected[3:]}
        found |= {reason["rule"] for row in expected[3:] for reason in (*(row[2] or ()), *(row[3] or ()))}
    for place in places:
        assert [one for one in ledger.check(place.connection) if one["violations"]] == []
    assert {"created", "updated", "unchanged", "ignored", "rejected", "superseded_in_file", "duplicate_in_file",
            "exists_already", "unknown_contract", "unknown_contact", "future_date", "too_few_fields"} <= found  # fmt: skip


# In which order --------------------------------------------------------------------------------------------------

DAYS = [f"{day:02}-0{month}-2025" for month in (1, 2) for day in (1, 2, 3)]


def dealt_files(draw: random.Random, count: int, *, twice: bool) -> list[File]:
    """Files without a definitive code; ``twice`` lets two files say the same of a contract, else only a file itself."""
    cards = [
        f"{form};{day};{code}" for form in ("F1", "F2", "F3", "X1", "X2") for day in DAYS for code in ("20", "30", "71")
    ]  # fmt: skip
    hands: list[list[str]] = [[] for _ in range(count)]
    for card in draw.sample(cards, len(cards)):
        for hand in draw.sample(hands, 2 if twice and draw.random() < 0.5 else 1):
            hand += [card] * (1 + (draw.random() < 0.2))
    for hand in hands:
        draw.shuffle(hand)
    template = draw.choice(["statuses", "statuses_parking", "statuses_parking"])
    return [File(template, "\n".join(hand) + "\n", {}) for hand in hands]


def end(place: Place, contents: Contents, batches: int) -> tuple[list[Any], list[Any]]:
    """The contracts with their histories, and what became of every record; late or not is all that may differ."""
    tables = contents(place.connection)
    entered = {"historic": "updated"}
    outcomes = [
        [(row["parked"] or row)["outcome"] for row in ledger.records(place.connection, seqno)]
        for seqno in range(1, batches + 1)
    ]
    assert [one for one in ledger.check(place.connection) if one["violations"]] == []
    told = [[entered.get(outcome, outcome) for outcome in of_batch] for of_batch in outcomes]
    return [row[:-1] for row in tables["contracts"] if row[0] < "F4" or row[0] > "X"], told


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_rule_8_without_definitive_codes_it_does_not_matter_in_which_order_batches_are_worked(
    places: list[Place], contents: Contents, tmp_path: Path, seed: int, twice: bool
) -> None:
    """Nor when records that wait are replayed. Of two batches that say the same, the one worked first is the entry: then
    only what is in the history is the same, not from which batch."""
    draw = random.Random(f"{seed} {twice}")
    files = dealt_files(draw, 6, twice=twice)
    ends = []
    for place in places:
        place.settings = replace(place.settings, load_chunk=draw.choice([1, 7, WHOLE]))
        for number, file in enumerate(files):
            path = tmp_path / f"{number}.csv"
            path.write_text(file.content)
            place.submit(file, path)
        if file.template == "statuses":
            place.create("X1", "71")
            place.create("X2", "72")
        steps = [*range(1, len(files) + 1), "X1 71", "X2 72", "replay"]
        for step in draw.sample(steps, len(steps)):
            if isinstance(step, int):
                pipeline.work(pipeline.Worker(place.connection, place.settings, "tester"), step)
            elif step == "replay":
                place.replay()
            else:
                place.create(*step.split())
        place.replay()
        ends.append(end(place, contents, len(files)))
    (contracts, told), (others, also_told) = ends
    if twice:
        for tables in (contracts, others):
            for row in tables:
                row[1:5] = row[2:3]  # the date of the current status
                row[-1] = sorted(entry.split(",")[:2] for entry in row[-1])
    else:
        assert told == also_told
    assert contracts == others


PART_CELLS = {
    "part_name": (["Adams", "Bauer", ""], ["Ulm", "Jena", "-", ""]),
    "part_card": (["1", "2.5", "-", ""], ["030 123456", ""]),
    "part_lists": (["a", "b|a", "c", ""], ["red", "red|blue", ""], ["WEB", "WEB|FAIR", "FAIR", ""],
                   ["NEWS", "OFFERS|NEWS", ""], ["NEWS", "GONE", "", ""]),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_batches_does_not_matter_to_contacts_where_the_rules_say_so(
    places: list[Place], contents: Contents, tmp_path: Path, seed: int
) -> None:
    """Batches about the same contacts that fill other fields, add to lists, opt in and out; one about contacts of its own."""
    draw = random.Random(seed)
    files = []
    for name in ("part_name", "part_card", "part_lists", "part_lists", "part_lists"):
        lines = [",".join([f"K{draw.randint(1, 9)}", *map(draw.choice, PART_CELLS[name])]) for _ in range(12)]
        files.append(File(name, "\n".join(lines) + "\n", {}))
    own = contact_file(draw, "contacts_by_number", 12, 9)
    theirs = re.sub(r"\bK(?=\d)", "L", re.sub(r"\b[eE](?=\d)", "f", own.content))
    files.append(replace(own, content=theirs))
    ends = []
    for place in places:
        place.settings = replace(place.settings, load_chunk=draw.choice([1, 7, WHOLE]))
        for number, file in enumerate(files):
            path = tmp_path / f"{number}.csv"
            path.write_text(file.content)
            place.submit(file, path)
        for seqno in draw.sample(range(1, len(files) + 1), len(files)):
            pipeline.work(pipeline.Worker(place.connection, place.settings, "tester"), seqno)
        assert [one for one in ledger.check(place.connection) if one["violations"]] == []
        rows = contents(place.connection)["contacts"]
        ends.append([
            row if not (row[0] or "").startswith("K") else
            # Which origin is the first, who entered what, and who created the contact, is told by the order.
            [*row[:3], sorted(origin.partition(",")[0] for origin in row[3]), row[4]]
            for row in rows
        ])  # fmt: skip
    assert ends[0] == ends[1]
