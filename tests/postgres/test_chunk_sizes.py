"""What becomes of a file never depends on how it is cut: two databases see the same files, one whole, one in chunks."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import batches, db, ledger, loading, pipeline, reference, suites, templates, uploads
from rowledger.db import Connection
from rowledger.errors import FileError
from rowledger.settings import Settings

Contents = Callable[[Connection], dict[str, list[Any]]]
WHOLE = 10**9
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
TEMPLATES = {
    "statuses": STATUSES,
    "statuses_strict": STATUSES + "policies: {unknown_contract: ignore, unknown_status: reject, future_dates: allow}\n",
    "contacts": CONTACTS,
    "contacts_by_email_first": CONTACTS + "policies: {match: [email, external_id]}\n",
    "contacts_by_number": CONTACTS + "policies: {match: [external_id]}\n",
    "contacts_by_email": CONTACTS + "policies: {match: [email]}\n",
}  # fmt: skip


@dataclass(frozen=True)
class File:
    template: str
    content: str
    options: dict[str, tuple[str, ...]]


def status_file(draw: random.Random, template: str, size: int, world: int) -> File:
    """Statuses of a few contracts in any order: late ones, definitive ones, repeats, unknown ones, wrong lines."""
    lines = []
    for _ in range(size):
        form = draw.choice([f"F{draw.randint(1, min(world, 60))}"] * 9 + ["X"])
        year = draw.choice([2025, 2025, 2025, 2026, 2099])
        line = f"{form};{draw.randint(1, 4):02}-{draw.randint(1, 2):02}-{year};{draw.choice(['10', '20', '20', '30', '30', '90', '77'])}"
        lines.append(
            draw.choice([line] * 12 + [f"{form};31-02-2025;20", f"{form};;20", f"{form};20", "", line[:-1]])
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
        lines.append(draw.choice([f"{key},{email},{name},{phone},{city}"] * 12 + [key, f"{key},,,,,", ""]))
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

    def work(self, file: File, path: Path) -> list[Any]:
        """Work a file off; returns its ledger."""
        template = _template(file.template)
        upload = uploads.keep_file(path, self.settings.uploads)
        seqno = batches.register(self.connection, upload, template, suites.suite_hash(template), "DEMO", by="tester",
                                 through="command line", again=True, **file.options)  # fmt: skip
        with contextlib.suppress(FileError):
            pipeline.work(pipeline.Worker(self.connection, self.settings, "tester"), seqno)
        batch = batches.get(self.connection, seqno)
        rows = [
            [row["record_no"], row["outcome"], row["reasons"], row["warnings"], row["raw"]]
            for row in ledger.records(self.connection, seqno)
        ]
        return [batch.succeeded, batch.error_message, batch.counts, *rows]

    def opt_out(self) -> None:
        """Some contacts leave a list; an import may not bring them back."""
        with db.transaction(self.connection) as cursor:
            cursor.execute("""
                INSERT INTO contact_subscription (contact_id, subscription_id, opted_in)
                SELECT contact_id, subscription_id, false FROM contact CROSS JOIN subscription
                WHERE list_id = 'NEWS' AND subscription.domain_id = contact.domain_id AND right(external_id, 1) IN ('1', '4')
                ON CONFLICT (contact_id, subscription_id) DO UPDATE SET opted_in = false""")


def differences(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> list[Any]:
    """Rows that only one of two databases has."""
    pairs = [(one[name], other[name]) for name in one if one[name] != other[name]]
    return [[row for row in a if row not in b] + [row for row in b if row not in a] for a, b in pairs]


@pytest.fixture
def places(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Place]]:
    """Two fresh databases with the same 60 contracts."""
    # Reading a template and deriving its suite take longer than working such a file off, and each comes many times.
    judge = functools.cache(suites.judge)
    monkeypatch.setattr(suites, "judge", lambda template: judge(template))
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
    return templates.parse_template(TEMPLATES[name], name, loading.kinds(), name)


def _execute(server: Any, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(server.get_uri("postgres"))) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


@pytest.mark.parametrize(
    ("validate", "load", "files", "size", "world"),
    [
        pytest.param(1, 1, 6, 7, 3, id="record by record"),
        pytest.param(7, 1, 45, 10, 4, id="validated by 7, loaded by 1"),
        pytest.param(WHOLE, 7, 48, 40, 9, id="loaded by 7"),
        pytest.param(500, 500, 6, 1200, 400, id="by 500"),
    ],
)
def test_files_cut_into_chunks_end_as_files_taken_whole(
    places: list[Place],
    contents: Contents,
    tmp_path: Path,
    validate: int,
    load: int,
    files: int,
    size: int,
    world: int,
) -> None:
    whole, cut = places
    cut.settings = replace(cut.settings, validate_chunk=validate, load_chunk=load)
    draw = random.Random(f"{validate} {load}")
    rules, outcomes = set(), set()
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
        if number % 7 == 5:
            whole.opt_out()
            cut.opt_out()
    for place in places:
        assert [one for one in ledger.check(place.connection) if one["violations"]] == []
    if size > 10:  # enough to meet every rule
        assert outcomes == {"created", "updated", "unchanged", "historic", "ignored", "rejected"}
        assert {"definitive_status", "duplicate_in_file", "superseded_in_file", "conflicting_keys", "unknown_contract",
                "unknown_status", "missing_key", "too_few_fields", "unique"} <= rules  # fmt: skip
