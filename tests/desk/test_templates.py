"""The pages and the API of templates: rules, versions, how often each rule rejects, files to fill in."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openpyxl import load_workbook

from rowledger import batches, control
from rowledger.db import Connection, rows, transaction
from rowledger.model import Batch
from rowledger.settings import Settings

ClientAs = Callable[..., TestClient]
DIRTY = "Email,Nachname,Country\na@example.com,A,DE\nwrong,B,XX\nb@example.com,,DE\nalso wrong,C,DE\n"
# What the ledger itself says, to hold the counts against.
IN_THE_LEDGER = """
    SELECT outcome, reason ->> 'rule' AS rule, reason ->> 'column' AS "column", count(*) AS records
    FROM import_record, jsonb_array_elements(reasons) AS reason
    WHERE seqno = ANY(%(seqnos)s) AND outcome IN ('rejected', 'ignored', 'parked')
    GROUP BY 1, 2, 3 ORDER BY records DESC, 1, 2, 3
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Templates that a test may change."""
    shutil.copytree(settings.templates, tmp_path / "templates")
    return replace(settings, templates=tmp_path / "templates")


def in_the_ledger(connection: Connection, *seqnos: int) -> list[tuple[Any, ...]]:
    with transaction(connection) as cursor:
        return [tuple(r.values()) for r in rows(cursor, IN_THE_LEDGER, {"seqnos": list(seqnos)})]


def counted(connection: Connection, seqno: int) -> list[tuple[Any, ...]]:
    query = 'SELECT outcome, rule, "column", records FROM import_batch_reason JOIN import_batch USING (seqno, reopened) WHERE seqno = %(seqno)s ORDER BY place'
    with transaction(connection) as cursor:
        return [tuple(r.values()) for r in rows(cursor, query, {"seqno": seqno})]


def test_why_records_were_not_loaded_is_counted_when_a_batch_ends(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    seqno = submit(DIRTY)
    assert counted(connection, seqno) == []
    work(seqno)
    assert counted(connection, seqno) == in_the_ledger(connection, seqno) != []


def test_a_batch_that_failed_or_was_cancelled_is_counted_too(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    failed = submit("Email,Last name\n" + "wrong,A\n" * 3)
    assert work(failed).failed
    assert counted(connection, failed) == [("rejected", "format", "Email", 3)]
    cancelled = submit(DIRTY)
    control.cancel(connection, cancelled, by="mia", why="")
    assert counted(connection, cancelled) == in_the_ledger(connection, cancelled) == []


def test_counting_once_more_changes_nothing(
    connection: Connection, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    seqno = submit(DIRTY)
    work(seqno)
    before = counted(connection, seqno)
    with transaction(connection) as cursor:
        cursor.execute("SELECT import_batch_count_reasons(%s, 0)", (seqno,))
    assert counted(connection, seqno) == before
    with transaction(connection) as cursor:
        cursor.execute("DELETE FROM import_batch_reason")
        cursor.execute("SELECT import_batch_count_reasons(seqno, reopened) FROM import_batch")
    assert counted(connection, seqno) == before


def test_a_template_adds_up_its_batches_under_its_own_names_of_columns(
    client: TestClient, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit(DIRTY))
    work(submit("Email,Last name\nx,A\nb@example.com,\n"))
    work(submit("F9;05-03-2026;30;;\n", "result_codes"))
    told = client.get("/api/v1/templates/contacts").json()["rejections"]
    assert (told["of_batches"], told["of_records"]) == (2, 6)
    assert [(one["rule"], one["column"], one["records"], one["batches"], one["last_seqno"]) for one in told["rules"]] == [
        ("format", "Email", 3, 2, 2), ("required", "Last name", 2, 2, 2), ("not_in_set", "Country", 1, 1, 1),
    ]  # fmt: skip
    assert told["rules"][0]["share"] == 0.5
    page = client.get("/templates/contacts").text
    assert "Of 6 records in the 2 imports that have ended" in page
    columns = page[page.index("<h2>Columns") : page.index("<h2>Whole records")]
    assert re.findall(r'<bdi>(Email|Last name|City)</bdi>.*?data-title="Rejected" class="figure">(\S+)</td>', columns, re.S) == [
        ("Email", "3"), ("Last name", "2"), ("City", "–")
    ]  # fmt: skip


def test_only_the_newest_batches_are_looked_at(
    client: TestClient,
    submit: Callable[..., int],
    work: Callable[[int], Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rowledger.desk import template_view

    work(submit(DIRTY))
    work(submit("Email,Last name\na@example.com,\nc@example.com,C\n"))
    monkeypatch.setattr(template_view, "LOOKED_AT", 1)
    told = client.get("/api/v1/templates/contacts").json()["rejections"]
    assert (told["of_batches"], told["of_records"], [one["rule"] for one in told["rules"]]) == (
        1,
        2,
        ["required"],
    )


def test_the_list_has_what_can_be_used_what_is_gone_and_what_is_wrong(
    client: TestClient, settings: Settings, submit: Callable[..., int]
) -> None:
    submit(DIRTY)
    gone = settings.templates / "travel_leads.yml"
    gone.write_text(gone.read_text().replace("domains: [TRAVEL]\n", ""))
    submit("Email,Surname\na@example.com,A\n", "travel_leads")
    gone.unlink()
    (settings.templates / "draft.yml").write_text("kind: nonsense\ntitle: <b>x</b>\ncolumns: [{header: A}]\n")
    told = client.get("/api/v1/templates").json()
    found = {one["name"]: (one["kind"], one["there"], one["batches"]) for one in told["templates"]}
    assert found["contacts"] == ("contact", True, 1)
    assert found["travel_leads"] == ("contact", False, 1)
    assert found["result_codes"] == ("contract_status", True, 0)
    (wrong,) = told["wrong"]
    assert wrong["name"] == "draft"
    assert wrong["message"].startswith("draft.yml, line 1, kind: must be one of")
    assert str(settings.templates) not in client.get("/templates").text
    page = client.get("/templates/travel_leads").text
    assert "This template is not there any more" in page
    assert "export.csv" not in page


def test_a_template_shows_its_versions_and_each_as_it_was(
    client: TestClient, settings: Settings, submit: Callable[..., int]
) -> None:
    submit(DIRTY)
    path = settings.templates / "contacts.yml"
    path.write_text(path.read_text().replace("title: Contacts by header", "title: Contacts, mended"))
    submit(DIRTY + "\n")
    told = client.get("/api/v1/templates/contacts").json()
    assert (told["title"], [one["batches"] for one in told["versions"]]) == ("Contacts, mended", [1, 1])
    assert told["versions"][0]["template_hash"] == told["hash"]
    old = told["versions"][1]["template_hash"]
    assert client.get(f"/api/v1/templates/contacts?version={old}").json()["title"] == "Contacts by header"
    page = client.get(f"/templates/contacts?version={old}").text
    assert "<h1><bdi>Contacts by header</bdi></h1>" in page
    assert "This is an older version" in page
    assert client.get(f"/templates/contacts?version={'0' * 64}").status_code == 404
    assert client.get("/templates/contacts?version=x").status_code == 422


def test_the_suite_is_that_of_the_template(
    client: TestClient, submit: Callable[..., int], connection: Connection
) -> None:
    seqno = submit(DIRTY)
    told = client.get("/api/v1/templates/contacts").json()
    assert (
        told["suite_hash"] == batches.get(connection, seqno).suite_hash == told["versions"][0]["suite_hash"]
    )
    page = client.get("/templates/contacts").text
    assert f"{len(told['suite'])} expectations, <code>{told['suite_hash'][:8]}</code>" in page


def test_a_page_of_a_template_needs_no_great_expectations(client: TestClient) -> None:
    import subprocess
    import sys

    script = "import sys, rowledger.desk, rowledger.desk.templates_page, rowledger.suites; print('great_expectations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_templates_of_kinds_that_one_may_not_read_stay_unseen(
    client_as: ClientAs, submit: Callable[..., int]
) -> None:
    submit("F1;01-02-2026;20;;\n", "result_codes")
    client = client_as("contact_only:user")
    assert {one["kind"] for one in client.get("/api/v1/templates").json()["templates"]} == {"contact"}
    for address in (
        "/templates/result_codes",
        "/api/v1/templates/result_codes",
        "/api/v1/templates/result_codes/export.xlsx?domain=DEMO",
    ):
        assert client.get(address).status_code == 403
    assert client.get("/templates/nothing").status_code == 404


def test_the_csv_to_fill_in_can_be_uploaded(
    client: TestClient, post: Callable[..., Any], work: Callable[[int], Batch]
) -> None:
    file = client.get("/api/v1/templates/contacts/export.csv")
    assert file.headers["Content-Disposition"].startswith('attachment; filename="contacts.csv"')
    assert file.headers["Content-Type"] == "text/csv; charset=utf-8"
    fields = file.text.strip().split(",")
    record = ["x@example.com" if name == "Email" else "X" if name == "Last name" else "" for name in fields]
    assert post(file.content + ",".join(record).encode()).status_code == 201
    assert work(1).counts["created"] == 1


def test_a_csv_that_would_be_empty_is_refused_with_the_fields(client: TestClient) -> None:
    refused = client.get("/api/v1/templates/result_codes/export.csv")
    assert refused.status_code == 409
    assert refused.json()["detail"].endswith(
        "Their fields are: Form ID, Date Result, Result code, Agent, Remark."
    )
    assert "export.csv" not in client.get("/templates/result_codes").text


def test_the_spreadsheet_offers_the_codes_of_the_domain_that_are_in_use(
    client: TestClient, connection: Connection
) -> None:
    from rowledger import reference

    reference.set_in_use(connection, reference.Status, "20", False, "DEMO")
    codes = load_workbook(
        io.BytesIO(client.get("/api/v1/templates/result_codes/export.xlsx?domain=DEMO").content)
    )["Codes"]
    assert [cell.value for cell in codes["A"]] == ["Result code", "10", "30", "90"]
    contacts = load_workbook(
        io.BytesIO(client.get("/api/v1/templates/contacts/export.xlsx?domain=DEMO").content)
    )["Codes"]
    told = {column[0].value: [cell.value for cell in column[1:] if cell.value] for column in contacts.columns}
    assert told["Country"] == ["AT", "BE", "CH", "DE", "FR", "NL"]
    assert told["Campaigns"] == ["FAIR", "WEB"]
    assert told["Subscribe to"] == ["NEWS", "OFFERS"]
    assert told["Unsubscribe from"] == ["GONE", "NEWS", "OFFERS"]


def test_the_spreadsheet_is_for_a_domain_that_the_template_is_for(
    client: TestClient, settings: Settings
) -> None:
    path = settings.templates / "contacts.yml"
    path.write_text(path.read_text().replace("kind: contact\n", "kind: contact\ndomains: [DEMO]\n", 1))
    address = "/api/v1/templates/contacts/export.xlsx"
    assert client.get(address, params={"domain": "DEMO"}).status_code == 200
    assert client.get(address, params={"domain": "OTHER"}).status_code == 422
    assert client.get(address, params={"domain": "NONE"}).status_code == 422
    assert client.get("/api/v1/templates/contracts/export.xlsx", params={"domain": "NONE"}).status_code == 404
    assert client.get(address).status_code == 422


def test_a_list_that_does_not_exist_yet_gives_a_spreadsheet_without_its_drop_down(
    client: TestClient, settings: Settings
) -> None:
    path = settings.templates / "contacts.yml"
    path.write_text(path.read_text().replace("reference: countries", "reference: nowhere"))
    made = client.get("/api/v1/templates/contacts/export.xlsx?domain=DEMO")
    assert made.status_code == 200
    assert "Country" not in [cell.value for cell in load_workbook(io.BytesIO(made.content))["Codes"][1]]
