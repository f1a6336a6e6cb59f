"""The OpenAPI document against the app: every parameter of every operation with hostile values, every answer in its form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rowledger.model import Batch

HOSTILE = ["", "0", "-1", "1e999", "9" * 30, "x", "\0", "a\nb", "%00", "'; DROP TABLE import_batch; --", "../../etc/passwd",
           "null", "true", "{}", "<script>", "ä" * 300, "\u202e", "=1+1", "2026-13-45", "*"]  # fmt: skip
GIVEN = {
    "kind": "contact",
    "domain": "DEMO",
    "template": "contacts",
    "file_name": "x",
    "name": "countries",
    "code": "NEW",
}
BODIES = [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a": 1, "a": 2}', b'{"why": 1e999}', b'{"why": "\\ud800"}',
          b'{"why": "\\u0000"}', b'{"why": {"why": []}}', b"[" * 50_000, b'{"template": "older"}', b'{"values": [null]}',
          b'{"why": ' + b"9" * 5000 + b"}", b'{"records": [{}]}']  # fmt: skip
FILLED = {"seqno": "1", "domain": "DEMO", "form_id": "F1", "key": "K1", "name": "contacts", "sort": "phase"}


@pytest.fixture
def document(client: TestClient) -> Any:
    return client.get("/api/v1/openapi.json").json()


def operations(document: Any) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    for path, item in document["paths"].items():
        for method, told in item.items():
            yield method.upper(), path, told.get("parameters", [])


def address(path: str, **changed: str) -> str:
    for name, value in (FILLED | changed).items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def is_right(answer: Any) -> bool:
    if answer.status_code < 400:
        return True
    told = answer.json() if answer.headers["Content-Type"] == "application/problem+json" else {}
    in_form = told.get("status") == answer.status_code and told.get("detail", "").endswith((".", "!", "?"))
    return answer.status_code < 500 and in_form and len(answer.content) < 10_000


@pytest.fixture
def batch(submit: Callable[..., int], work: Callable[[int], Batch]) -> Batch:
    """Batch 1, of which something was rejected."""
    return work(
        submit("Customer number,Email,Last name\nK1,a@example.com,A\nK2,b@example.com,\nK3,c@example.com,C\n")
    )


@pytest.mark.usefixtures("batch")
def test_no_value_of_a_parameter_is_answered_with_anything_but_an_answer_or_a_sentence(
    client_as: Callable[..., TestClient], document: Any
) -> None:
    client = client_as("admin")
    wrong, asked = [], 0
    for method, path, parameters in operations(document):
        for parameter in parameters:
            name = parameter["name"]
            for value in HOSTILE:
                query = {
                    p["name"]: GIVEN.get(p["name"], "x")
                    for p in parameters
                    if p["in"] == "query" and p["required"]
                }
                headers: dict[str, Any] = {"If-Match": "*", "Idempotency-Key": f"k{asked}"}
                if parameter["in"] == "query":
                    query |= {name: value}
                elif parameter["in"] == "header":
                    headers |= {name: value.translate({0: " ", 10: " "}).encode()}
                changed = {name: value} if parameter["in"] == "path" else {}
                if changed and value in ("", "../../etc/passwd"):
                    continue  # another address
                answer = client.request(method, address(path, **changed), params=query, headers=headers)
                asked += 1
                if not is_right(answer):
                    wrong.append(
                        f"{method} {path} {name}={value!r}: {answer.status_code} {answer.text[:200]}"
                    )
    assert wrong == []
    assert asked > 1000


@pytest.mark.usefixtures("batch")
def test_no_body_is_answered_with_anything_but_an_answer_or_a_sentence(
    client_as: Callable[..., TestClient], document: Any
) -> None:
    client = client_as("admin")
    wrong = []
    for method, path, _ in operations(document):
        for number, body in enumerate(BODIES) if method != "GET" else ():
            headers = {"If-Match": "*", "Idempotency-Key": f"k{number}", "Content-Type": "application/json"}
            query = {"domain": "DEMO", "name": "countries", "code": "NEW"}
            answer = client.request(method, address(path), params=query, content=body, headers=headers)
            if not is_right(answer):
                wrong.append(f"{method} {path} {body[:40]!r}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []


def test_everything_that_changes_something_is_said_to_be_seen_or_keyed(document: Any) -> None:
    """What may be sent twice by accident has a key; what depends on what was seen names that."""
    neither = []
    for method, path, parameters in operations(document):
        names = {p["name"].lower() for p in parameters}
        if method != "GET" and not names & {"if-match", "idempotency-key"}:
            neither.append(f"{method} {path}")
    assert set(neither) <= {
        "POST /api/v1/checks",  # changes nothing
        "POST /api/v1/parked/give-up",  # what was given up is not given up again
        "POST /api/v1/reference/lists/add",  # values are in a list or not
        "POST /api/v1/reference/lists/remove",
        "POST /api/v1/reference/{sort}/item",  # an item that is there already is refused
    }


def test_every_operation_has_an_example_of_its_answer_and_says_what_a_problem_is(
    app: FastAPI, document: Any
) -> None:
    for path, item in document["paths"].items():
        for method, told in item.items():
            assert told.get("summary"), f"{method} {path}"
            assert told.get("description"), f"{method} {path}"
            answers = told["responses"]
            assert "4XX" in answers, f"{method} {path}"
            done = [content for status in ("200", "201", "202") if status in answers
                    for content in answers[status]["content"].values()]  # fmt: skip
            assert done, f"{method} {path}"
            assert all("example" in content for content in done), f"{method} {path}"
