"""Mend here: rejected records as fields, what is sent is what stood in them, and both batches name each other."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rowledger import batches, ledger
from rowledger.db import Connection, row, rows, transaction
from rowledger.model import Batch

Submit, Work, Client = Callable[..., int], Callable[[int], Batch], Callable[..., TestClient]
Became = Callable[[int], list[tuple[Any, ...]]]
HEADER = "Customer number,Email,Last name,Street,Country\n"
CONTACTS = (
    HEADER
    + 'K1,a@example.com,Ann,,DE\nK2,b@example.com,Ben,,XX\n007,c@example.com,,"A ""b""\n 2",DE\nK4,d@example.com,Dan,,DE\n'
)


def cells(batch: int, page: str) -> dict[int, list[str]]:
    """What stands in the fields of every record of a page, as a browser reads it."""
    found: dict[int, list[str]] = {}
    for record in page.split("<fieldset ")[1:]:
        number = re.search(r'data-record="(\d+)"', record)
        assert number
        fields = re.findall(
            r'<input type="text"[^>]* value="([^"]*)"|<textarea[^>]*>\n?([^<]*)</textarea>', record
        )
        found[int(number[1])] = [html.unescape(value or text) for value, text in fields]
    return found


def told(*records: tuple[int, list[str]]) -> dict[str, Any]:
    return {"records": [{"record_no": number, "cells": values} for number, values in records]}


def mended(client: TestClient, seqno: int, body: dict[str, Any], query: str = "", **headers: str) -> Any:
    return client.post(f"/api/v1/batches/{seqno}/mended{query}", json=body, headers=headers)


def test_records_whose_cells_are_not_kept_any_more_cannot_be_mended_and_the_page_says_so(
    client: TestClient, submit: Submit, work: Work, connection: Connection
) -> None:
    seqno = work(submit(CONTACTS)).seqno
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO import_batch_removed (seqno, what, why) VALUES (%s, 'cells', 'retention')", (seqno,)
        )
    page = client.get(f"/batches/{seqno}/mend")
    assert page.status_code == 409
    assert f"The cells of the rejected records of import batch {seqno} are not kept any more." in page.text


def test_two_records_are_mended_checked_and_sent_and_the_batches_name_each_other(
    client: TestClient, submit: Submit, work: Work, became: Became, connection: Connection
) -> None:
    seqno = work(submit(CONTACTS, origins=["WEB"], subscriptions=["NEWS"])).seqno
    assert became(seqno)[1:3] == [(2, "rejected", "not_in_set"), (3, "rejected", "required")]
    assert "Mend here" in client.get(f"/batches/{seqno}").text
    page = client.get(f"/batches/{seqno}/mend").text
    assert cells(seqno, page) == {2: ["K2", "b@example.com", "Ben", "", "XX"],
                                  3: ["007", "c@example.com", "", 'A "b"\n 2', "DE"]}  # fmt: skip
    assert 'aria-label="Last name, record 3"' in page
    assert "Last name is empty, but must be filled in." in page

    half = told(
        (2, ["K2", "b@example.com", "Ben", "", "AT"]), (3, ["007", "c@example.com", "", 'A "b"\n 2', "DE"])
    )
    checked = mended(client, seqno, half, "?check=true")
    assert checked.status_code == 200, checked.text
    assert [(r["record_no"], r["outcome"]) for r in checked.json()["records"]] == [
        (2, "created"),
        (3, "rejected"),
    ]
    assert checked.json()["records"][1]["reasons"][0]["column"] == "Last name"
    assert client.get("/api/v1/batches").json()["batches"][0]["seqno"] == seqno

    whole = told(
        (2, ["K2", "b@example.com", "Ben", "", "AT"]), (3, ["007", "c@example.com", "Cid", 'A "b"\n 2', "DE"])
    )
    answer = mended(client, seqno, whole)
    assert answer.status_code == 201, answer.text
    child = work(answer.json()["seqno"])
    assert (child.parent_seqno, child.template_hash, child.counts["created"]) == (
        seqno,
        batches.get(connection, seqno).template_hash,
        2,
    )
    assert "2 mended records went into import batch" in answer.json()["message"]
    with transaction(connection) as cursor:
        street = row(cursor, "SELECT street, external_id FROM contact WHERE email = 'c@example.com'")
        assert street == {"street": 'A "b"\n 2', "external_id": "007"}
        linked = rows(cursor, "SELECT child_record_no, record_no FROM mended_record ORDER BY 1")
        assert [tuple(one.values()) for one in linked] == [(1, 2), (2, 3)]
    about = client.get(f"/api/v1/batches/{child.seqno}").json()
    assert (about["origins"], about["subscriptions"]) == (["WEB"], ["NEWS"])
    assert client.get(f"/api/v1/batches/{seqno}").json()["children"] == [child.seqno]
    assert f"/batches/{child.seqno}" in client.get(f"/batches/{seqno}").text
    assert "2 mended records of" in client.get(f"/batches/{child.seqno}").text
    assert [check for check in ledger.check(connection) if check["violations"]] == []
    left = client.get(f"/batches/{seqno}/mend").text
    assert cells(seqno, left) == {}
    assert "Every rejected record was sent again." in left


def test_a_record_is_sent_once_unless_what_became_of_it_came_to_nothing(
    client: TestClient, submit: Submit, work: Work
) -> None:
    seqno = work(submit(CONTACTS)).seqno
    body = told((2, ["K2", "b@example.com", "Ben", "", "DE"]))
    child = mended(client, seqno, body, Idempotency_Key="k").json()["seqno"]
    again = mended(client, seqno, body)
    assert (again.status_code, f"sent already, as import batch {child}" in again.json()["detail"]) == (
        409,
        True,
    )
    assert mended(client, seqno, body, "?check=true").status_code == 409
    assert list(cells(seqno, client.get(f"/batches/{seqno}/mend").text)) == [3]
    client.post(f"/api/v1/batches/{child}/cancel", headers={"If-Match": "*"})
    assert list(cells(seqno, client.get(f"/batches/{seqno}/mend").text)) == [2, 3]
    assert mended(client, seqno, body).status_code == 201


def test_the_same_key_again_is_the_same_batch(client: TestClient, submit: Submit, work: Work) -> None:
    seqno = work(submit(CONTACTS)).seqno
    body = told((2, ["K2", "b@example.com", "Ben", "", "DE"]))
    first, second = (
        client.post(f"/api/v1/batches/{seqno}/mended", json=body, headers={"Idempotency-Key": "k"})
        for _ in "12"
    )
    assert (first.status_code, second.status_code, first.json()["seqno"]) == (
        201,
        201,
        second.json()["seqno"],
    )
    other = client.post(
        f"/api/v1/batches/{seqno}/mended", json=told((3, ["K3", "c@example.com", "C", "", "DE"])), headers={"Idempotency-Key": "k"}
    )  # fmt: skip
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (told((1, ["K1", "", "A", "", ""])), 409, "Record 1 of import batch 1 is not rejected"),
        (told((99, ["K1", "", "A", "", ""])), 409, "Record 99 of import batch 1 is not rejected"),
        (told((2, ["K2", "", "A", "", ""]), (2, ["K2", "", "B", "", ""])), 409, "named twice"),
        (told(), 422, "records"),
        (told((0, ["x"])), 422, "record_no"),
        (told((2, [])), 422, "cells"),
        ({"records": [{"record_no": 2, "cells": ["x"], "more": 1}]}, 422, "more"),
        (told((2, ["x" * 4_000_000])), 413, "4,000,000"),
    ],
)
@pytest.mark.parametrize("query", ["", "?check=true"])
def test_what_cannot_be_mended_is_refused_with_a_sentence(
    client: TestClient,
    submit: Submit,
    work: Work,
    connection: Connection,
    body: Any,
    status: int,
    says: str,
    query: str,
) -> None:
    work(submit(CONTACTS))
    answer = mended(client, 1, body, query)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert batches.children(connection, 1) == []


def test_a_batch_that_has_not_ended_is_not_mended_yet(client: TestClient, submit: Submit) -> None:
    seqno = submit(CONTACTS)
    answer = mended(client, seqno, told((2, ["K2", "", "B", "", ""])))
    assert (answer.status_code, "not ended yet" in answer.json()["detail"]) == (409, True)
    assert "has not ended yet" in client.get(f"/batches/{seqno}/mend").text
    assert "Mend here" not in client.get(f"/batches/{seqno}").text


def test_mending_needs_the_right_on_personal_data_and_the_right_to_write(
    client_as: Client, submit: Submit, work: Work
) -> None:
    seqno = work(submit(CONTACTS)).seqno
    body = told((2, ["K2", "b@example.com", "Ben", "", "DE"]))
    for role in ("viewer", "clerk", "auditor"):
        client = client_as(role)
        assert mended(client, seqno, body).status_code == 403
        assert client.get(f"/batches/{seqno}/mend").status_code == 403
        assert "Mend here" not in client.get(f"/batches/{seqno}").text


@pytest.mark.parametrize("template", ["contacts", "result_codes"])
def test_cells_arrive_as_they_were_sent_whatever_stands_in_them(
    client: TestClient, submit: Submit, work: Work, connection: Connection, template: str
) -> None:
    odd = [
        "=1+1",
        "'=1+1",
        '"',
        '"",""',
        "a\nb",
        "\n",
        " x ",
        "007",
        "ä€漢",
        "rowledger: x",
        ";,\t",
        "\\",
        "'",
    ]
    contacts = template == "contacts"
    wrong, header = ("K1,no address,,,\n", HEADER) if contacts else ("F1;x;20;;\n", "")
    seqno = work(submit(header + wrong * len(odd), template)).seqno
    sent = [["K1", cell, cell, cell, cell] if contacts else [cell, cell, cell, "", cell] for cell in odd]
    child = mended(client, seqno, told(*enumerate(sent, 1))).json()["seqno"]
    with Path(batches.get(connection, child).file_path).open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file, delimiter="," if contacts else ";"))[contacts:] == sent
    work(child)
    assert [record["raw"] for record in ledger.records(connection, child, ["rejected"])] == sent


def test_records_with_too_many_or_too_few_fields_and_open_quotes_can_be_put_right(
    client: TestClient, submit: Submit, work: Work, became: Became
) -> None:
    wrong = (
        'K1,a@example.com,Miller, GmbH,Street,DE\nK2,b@example.com,Ben\nK3,c@example.com,"Bo"b,Street,DE\n'
    )
    right = "".join(f"K{number},k{number}@example.com,Dan,,DE\n" for number in range(4, 8))
    seqno = work(submit(HEADER + wrong + right)).seqno
    page = client.get(f"/batches/{seqno}/mend").text
    assert cells(seqno, page) == {
        1: ["K1", "a@example.com", "Miller", " GmbH", "Street", "DE"],
        2: ["K2", "b@example.com", "Ben", "", ""],
        3: ["K3", "c@example.com", "Bob", "Street", "DE"],
    }
    assert 'aria-label="Field 6, record 1"' in page
    assert "The last 2 fields are missing." in page
    assert "K3,c@example.com,&#34;Bo&#34;b,Street,DE" in page
    put_right = told((1, ["K1", "a@example.com", "Miller, GmbH", "Street", "DE"]), (2, ["K2", "b@example.com", "Ben", "", "DE"]),
                 (3, ["K3", "c@example.com", "Bob", "Street", "DE"]))  # fmt: skip
    child = work(mended(client, seqno, put_right).json()["seqno"]).seqno
    assert became(child) == [(1, "created"), (2, "created"), (3, "created")]


def test_reasons_of_an_export_that_was_uploaded_are_no_cells_to_mend(
    client: TestClient, submit: Submit, work: Work, connection: Connection
) -> None:
    exported = (
        'Customer number,Email,Last name,rowledger_reasons\n"K1","\'=x","Ann","rowledger: Email is wrong."\n'
    )
    seqno = work(submit(exported)).seqno
    assert cells(seqno, client.get(f"/batches/{seqno}/mend").text) == {1: ["K1", "=x", "Ann"]}
    child = mended(client, seqno, told((1, ["K1", "'=x", "Ann"]))).json()["seqno"]
    assert (
        Path(batches.get(connection, child).file_path).read_text()
        == '"Customer number","Email","Last name"\n"K1","\'=x","Ann"\n'
    )
    work(child)
    (record,) = ledger.records(connection, child, ["rejected"])
    assert record["raw"] == ["K1", "'=x", "Ann"]


def test_a_character_that_the_encoding_does_not_have_is_refused_by_its_name(
    client: TestClient, submit: Submit, work: Work
) -> None:
    header = "Form ID;Date Result;Result code\n"
    seqno = work(submit(f"{header}F1;x;20\n".encode("cp1252"), "result_codes_with_header")).seqno
    answer = mended(client, seqno, told((1, ["F1", "01-02-2026", "漢"])))
    assert answer.status_code == 422
    assert '"漢" cannot be written in windows-1252' in answer.json()["detail"]


def test_many_rejects_come_a_page_at_a_time_and_by_reason(
    client: TestClient, submit: Submit, work: Work
) -> None:
    lines = [
        f"K{n},k{n}@example.com,{'' if n % 2 else 'A'},,{'DE' if n % 2 else 'XX'}\n" for n in range(1, 42)
    ]
    seqno = work(submit(HEADER + "".join(lines))).seqno
    first = client.get(f"/batches/{seqno}/mend").text
    assert list(cells(seqno, first)) == list(range(1, 21))
    assert "after=20" in first
    assert list(cells(seqno, client.get(f"/batches/{seqno}/mend", params={"after": 40}).text)) == [41]
    some = client.get(f"/batches/{seqno}/mend", params={"rule": "required", "column": "Last name"}).text
    assert list(cells(seqno, some)) == list(range(1, 41, 2))


def test_the_values_of_a_file_are_no_markup(client: TestClient, submit: Submit, work: Work) -> None:
    bad = '"><script>alert(1)</script>'
    line = io.StringIO()
    csv.writer(line).writerow([bad, bad, "", f"</textarea>{bad}", bad])
    seqno = work(submit(HEADER + line.getvalue())).seqno
    page = client.get(f"/batches/{seqno}/mend").text
    assert "<script>alert" not in page
    assert cells(seqno, page)[1][0] == bad
