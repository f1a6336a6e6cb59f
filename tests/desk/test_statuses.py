"""Contract statuses as JSON records: a batch like any other, and what a hostile body gets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rowledger import batches, contracts, ledger
from rowledger.db import Connection, rows, transaction
from rowledger.desk import statuses_api
from rowledger.model import Batch
from rowledger.settings import Settings

RECORDS: list[dict[str, Any]] = [
    {"form_id": "F1", "date_result": "2026-02-01", "result_code": "20", "agent": "mia"},
    {"result_code": "90", "form_id": "F2", "date_result": "2026-02-01", "remark": 'two\nlines; "x"'},
    {"form_id": "F404", "date_result": "2026-02-01", "result_code": "20"},
    {"form_id": "F3", "date_result": "01-02-2026", "result_code": None},
    {"form_id": "F3", "date_result": "2026-02-01", "result_code": "99", "remark": "=1+1"},
]
Send = Callable[..., Any]
Work = Callable[[int], Batch]


@pytest.fixture
def send(client: TestClient) -> Send:
    def send(told: Any, query: dict[str, Any] | None = None, as_: Any = None, **headers: str) -> Any:
        given = {"Idempotency-Key": "key-1", "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = told if isinstance(told, bytes | str) else json.dumps({"records": told})
        params = {"domain": "DEMO"} | (query or {})
        return (as_ or client).post(
            "/api/v1/contract-statuses", params=params, content=content, headers=given
        )

    return send


def count(connection: Connection) -> int:
    with transaction(connection) as cursor:
        return len(rows(cursor, "SELECT seqno FROM import_batch"))


def test_records_become_a_batch_like_any_other(
    send: Send, work: Work, became: Callable[[int], Any], client: TestClient, connection: Connection
) -> None:
    answer = send(RECORDS)
    assert answer.status_code == 201, answer.text
    batch = batches.get(connection, answer.json()["seqno"])
    assert (batch.kind, batch.status, batch.uploaded_by, batch.uploaded_through, batch.template) == (
        "contract_status", "waiting", "user", "api", "contract_status_records",
    )  # fmt: skip
    assert answer.headers["Location"] == f"/api/v1/batches/{batch.seqno}"
    assert answer.headers["ETag"] == client.get(answer.headers["Location"]).headers["ETag"]
    assert work(batch.seqno).succeeded
    assert became(batch.seqno) == [
        (1, "updated"), (2, "updated"), (3, "rejected", "unknown_contract"), (4, "rejected", "format", "required"),
        (5, "ignored", "unknown_status"),
    ]  # fmt: skip
    history = contracts.profile(connection, "DEMO", "F2").history
    assert (history[-1].code, str(history[-1].date_result), history[-1].seqno) == (
        "90",
        "2026-02-01",
        batch.seqno,
    )
    assert list(ledger.records(connection, batch.seqno))[2]["raw"] == ["F404", "2026-02-01", "20", "", ""]
    rejects = client.get(f"/api/v1/batches/{batch.seqno}/rejects.csv").text
    assert [line[:4] for line in csv.reader(io.StringIO(rejects))] == [
        ["form_id", "date_result", "result_code", "agent"], ["F404", "2026-02-01", "20", ""], ["F3", "01-02-2026", "", ""],
    ]  # fmt: skip
    again = client.post(
        f"/api/v1/batches/{batch.seqno}/reprocess", json={"template": "current"}, headers={"If-Match": "*"}
    )
    assert again.status_code == 201, again.text


def test_values_are_kept_as_they_were_sent(send: Send, connection: Connection, work: Work) -> None:
    odd = [" 007 ", "'=x", 'a"b', "é́", "\u2028", "sep=;", "NULL", "\\.", "\t"]
    sent = [{"form_id": one, "date_result": "x", "result_code": one, "remark": one} for one in odd]
    seqno = send(sent).json()["seqno"]
    work(seqno)
    found = [record["raw"] for record in ledger.records(connection, seqno)]
    assert found == [[one, "x", one, "", one] for one in odd]


def test_the_same_key_again_is_the_same_batch_and_never_another(send: Send, connection: Connection) -> None:
    first = send(RECORDS)
    same = json.dumps({"records": [dict(reversed(record.items())) for record in RECORDS]}, indent=3)
    assert send(same).json()["seqno"] == first.json()["seqno"]
    assert send(RECORDS[:1]).status_code == 422
    assert count(connection) == 1


def test_the_same_records_are_noticed_and_can_be_taken_all_the_same(
    send: Send, connection: Connection
) -> None:
    seqno = send(RECORDS).json()["seqno"]
    answer = send(RECORDS, Idempotency_Key="key-2")
    assert (answer.status_code, answer.json()["seqno"]) == (409, seqno)
    assert send(RECORDS, {"again": "true"}, Idempotency_Key="key-2").status_code == 201
    assert count(connection) == 2


def test_another_template_brings_its_layout_and_its_rules(
    send: Send, work: Work, connection: Connection, became: Callable[[int], Any]
) -> None:
    sent = [{"form_id": "F1", "date_result": "01-02-2026", "result_code": "20", "Remark": "grüße; €"}]
    for number, name in enumerate(("result_codes", "result_codes_with_header")):
        answer = send(sent, {"template": name}, Idempotency_Key=f"k{number}")
        assert answer.status_code == 201, answer.text
        batch = work(answer.json()["seqno"])
        assert became(batch.seqno) == [(1, "unchanged" if number else "updated")]
        text = Path(batch.file_path).read_bytes().decode("cp1252" if number else "utf-8")
        assert text.endswith('"F1";"01-02-2026";"20";"";"grüße; €"\r\n')
    answer = send(
        [sent[0] | {"Remark": "漢"}], {"template": "result_codes_with_header"}, Idempotency_Key="k3"
    )
    assert (answer.status_code, "Record 1: Remark" in answer.json()["detail"]) == (422, True)


def test_a_template_of_the_folder_takes_the_place_of_the_built_in_one(
    send: Send, settings: Settings, tmp_path: Path, app: Any, work: Work, became: Callable[[int], Any]
) -> None:
    from rowledger import templates
    from rowledger.desk.shelf import Shelf

    source = (templates.BUILT_IN / f"{statuses_api.TEMPLATE}.yml").read_text()
    (tmp_path / f"{statuses_api.TEMPLATE}.yml").write_text(
        source.replace("contract: reject", "contract: park")
    )
    object.__setattr__(app.state.desk, "shelf", Shelf(tmp_path))
    seqno = send(RECORDS[2:3]).json()["seqno"]
    work(seqno)
    assert became(seqno)[0][1] == "parked"


GOOD = '{"form_id": "F1", "date_result": "2026-02-01", "result_code": "20"}'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        # H11, D12
        ("", "not proper JSON"),
        ("{", "not proper JSON"),
        (b'{"records": [{"form_id": "\xff"}]}', "not proper JSON"),
        ('{"records": ' + "[" * 100_000, "not proper JSON"),
        ('{"records": ' + "[" * 100_000 + "]" * 100_000 + "}", "not proper JSON"),
        (f'{{"records": [{GOOD}, {{"form_id": {"9" * 5000}}}]}}', "not proper JSON"),
        ("null", "list of records"),
        ("[]", "list of records"),
        ('{"records": {}}', "list of records"),
        (f'{{"records": [{GOOD}], "records": []}}', "list of records"),
        (f'{{"records": [{GOOD}], "more": 1}}', "list of records"),
        ('{"records": []}', "no records"),
        (f'{{"records": [{",".join(["{}"] * 10_001)}]}}', "10,001 records are too many"),
        (f'{{"records": [{GOOD}, 5]}}', "Record 2: it must be an object, not a number."),
        (f'{{"records": [{GOOD}, []]}}', "Record 2: it must be an object, not a list."),
        (f'{{"records": [{GOOD}, null]}}', "Record 2: it must be an object, not null."),
        ('{"records": [{"form_id": 12345}]}', "Record 1: form_id must be a text"),
        ('{"records": [{"form_id": NaN}]}', "not a number"),
        ('{"records": [{"form_id": 1e999}]}', "not a number"),
        ('{"records": [{"form_id": true}]}', "not true or false"),
        ('{"records": [{"form_id": {"a": 1}}]}', "not an object"),
        ('{"records": [{"form_id": "1", "form_id": "2"}]}', "Record 1: form_id stands there twice"),
        ('{"records": [{"form_id": "\\ud800"}]}', "Record 1: form_id has a character that is none"),
        ('{"records": [{"form_id": "a\\u0000"}]}', "Record 1: form_id has a character that is none"),
        ('{"records": [{"form_id": "\\ufdd0"}]}', "Record 1: form_id has a character that is none"),
        ('{"records": [{"<script>": "1"}]}', "Record 1: it has a field that is not known; the fields are form_id"),
        (f'{{"records": [{",".join(["1"] * 10_000)}]}}', "Record 3: it must be an object, not a number. 9,997 more"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_list_of_records_is_refused_whole(
    send: Send, connection: Connection, settings: Settings, body: str | bytes, says: str
) -> None:
    answer = send(body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert says in answer.json()["detail"]
    assert len(answer.content) < 10_000
    assert "script" not in answer.text
    assert count(connection) == 0
    assert not [path for path in settings.uploads.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("query", "headers", "status", "says"),
    [
        ({}, {"Idempotency_Key": ""}, 400, "Idempotency-Key"),
        ({}, {"Content_Type": "text/csv"}, 415, "application/json"),
        ({}, {"Content_Encoding": "gzip"}, 415, "Content-Encoding"),
        ({"domain": ""}, {}, 422, "domain"),
        ({"domain": "NOWHERE"}, {}, 422, 'no domain "NOWHERE"'),
        ({"domain": "\0"}, {}, 422, "NUL"),
        ({"template": "contacts"}, {}, 422, "is for contact"),
        ({"template": "nothing"}, {}, 422, "no template"),
    ],
)
def test_what_is_wrong_around_the_records_is_refused_in_a_sentence(
    send: Send, connection: Connection, query: Any, headers: Any, status: int, says: str
) -> None:
    answer = send(RECORDS, query, **headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]
    assert count(connection) == 0


def test_a_body_that_is_too_large_is_refused(send: Send, connection: Connection) -> None:
    answer = send([{"form_id": "x" * statuses_api.MAX_BYTES}])
    assert (answer.status_code, count(connection)) == (413, 0)


@pytest.mark.parametrize(
    ("role", "status"), [("viewer", 403), ("contact_only:user", 403), ("clerk", 201), ("user", 201)]
)
def test_it_needs_the_right_to_write_contract_statuses_before_anything_is_read(
    client_as: Callable[..., TestClient], send: Send, role: str, status: int
) -> None:
    assert send(RECORDS, as_=client_as(role)).status_code == status
    assert send("{", {"domain": ""}, as_=client_as(role)).status_code == (403 if status == 403 else 422)


def test_the_built_in_template_has_every_field_of_the_kind_and_is_offered_last(app: Any) -> None:
    from rowledger import loading

    found = app.state.desk.shelf.all()
    assert found[-1].name == statuses_api.TEMPLATE
    fields = {field.name for field in loading.kinds()["contract_status"].fields}
    assert fields == {column.field for column in found[-1].columns if column.field}


def test_the_example_of_the_document_is_taken(client: TestClient, send: Send) -> None:
    document = client.get("/api/v1/openapi.json").json()
    body = document["paths"]["/api/v1/contract-statuses"]["post"]["requestBody"]["content"][
        "application/json"
    ]
    assert send(json.dumps(body["example"])).status_code == 201
