"""The access matrix: every role on every route with every method, made from the app's own routes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from rowledger.desk.access import Right

sys.path.insert(0, str(Path(__file__).parent))
from matrix import METHODS, ROLES, address, expected, routes


@pytest.fixture
def every_route(app: FastAPI) -> dict[tuple[str, str], frozenset[Right]]:
    found = routes(app)
    assert len(found) > 20
    return found


@pytest.mark.parametrize("cookie", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_every_route_lets_in_whom_it_should_and_nobody_else(
    every_route: dict[tuple[str, str], frozenset[Right]],
    client_as: Callable[..., TestClient],
    role: str | None,
    cookie: bool,
) -> None:
    client = client_as(role, cookie=cookie)
    own = {"X-Rowledger": "page", "Sec-Fetch-Site": "same-origin"}
    paths = sorted({path for _, path in every_route})
    wrong = []
    for path in [
        *paths,
        "/docs",
        "/redoc",
        "/openapi.json",
        "/no/such/page",
        "/static/../desk.css",
        "/api/v1/nothing",
    ]:
        for method in METHODS:
            known = (method, path) in every_route
            wanted = expected(role, every_route.get((method, path)), known=known)
            answer = client.request(method, address(path), headers=own)
            right = (
                answer.status_code not in (401, 403, 405) if wanted == "in" else answer.status_code in wanted
            )
            if not right or answer.status_code >= 500:
                wrong.append(f"{method} {path}: {answer.status_code}, not {wanted}")
    assert wrong == []


def test_no_route_has_a_body_that_is_read_before_access_is_decided(app: FastAPI) -> None:
    """FastAPI reads the body of a route that declares one before any dependency is asked."""
    declared = [r.path for r in app.routes if isinstance(r, APIRoute) and r.body_field is not None]
    assert declared == []


@pytest.mark.parametrize(
    ("path", "role"),
    [(path, role) for path in ("/api/v1/batches", "/api/v1/checks", "/new/check") for role in (None, "expired", "garbage", "", "viewer")]
    + [("/api/v1/batches/1/mended", role) for role in (None, "viewer", "clerk", "auditor")],
)  # fmt: skip
def test_a_body_is_not_read_before_access_is_decided(app: FastAPI, path: str, role: str | None) -> None:
    import anyio

    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"content-type", b"text/csv"),
        (b"idempotency-key", b"k"),
        (b"content-length", b"10000000000"),
    ]
    if role is not None:
        headers.append((b"authorization", f"Bearer {role}".encode()))
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"kind=contact&domain=DEMO&template=contacts&file_name=x.csv", "headers": headers,
        "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1), "app": app,
    }  # fmt: skip
    anyio.run(app, scope, receive, send)
    assert sent[0]["status"] == (401 if role in (None, "expired") else 403)
    assert dict(sent[0]["headers"])[b"connection"] == b"close"


def test_rights_on_one_kind_are_no_rights_on_another(
    client_as: Callable[..., TestClient], submit: Callable[..., int], app: FastAPI
) -> None:
    status = submit("F1;01-02-2026;20;;\n", "result_codes")
    contact = submit("Email,Last name\na@example.com,A\n")
    client = client_as("contact_only:user")
    assert [b["seqno"] for b in client.get("/api/v1/batches").json()["batches"]] == [contact]
    assert [g["batches"] for g in client.get("/api/v1/batches/totals").json()["groups"]] == [1]
    wrong = []
    for method, path in routes(app):
        if "{seqno}" in path:
            answer = client.request(method, path.replace("{seqno}", str(status)), headers={"If-Match": "*"})
            wrong += [f"{method} {path}: {answer.status_code}"] if answer.status_code != 403 else []
    assert wrong == []
    seen = f"{status}-{'0' * 12},{contact}-{'0' * 12}"
    changed = client.get("/changes", params={"seen": seen}).text
    assert f'id="batch-{contact}"' in changed
    assert f'id="batch-{status}"' not in changed
    upload = {"kind": "contract_status", "domain": "DEMO", "template": "result_codes", "file_name": "x.csv"}
    refused = client.post(
        "/api/v1/batches",
        params=upload,
        content=b"x",
        headers={"Idempotency-Key": "k", "Content-Type": "text/csv"},
    )
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "X-Rowledger": "page"}, 428),
        ({"Sec-Fetch-Site": "same-site", "X-Rowledger": "page"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "X-Rowledger": "page"}, 403),
        ({"Sec-Fetch-Site": "none", "X-Rowledger": "page"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 403),
        ({"X-Rowledger": "page"}, 403),
        ({"Origin": "http://testserver", "X-Rowledger": "page"}, 428),
        ({"Origin": "http://testserver:8081", "X-Rowledger": "page"}, 403),
        ({"Origin": "http://evil.testserver", "X-Rowledger": "page"}, 403),
        ({"Origin": "null", "X-Rowledger": "page"}, 403),
        ({"Origin": "http://testserver"}, 403),
        ({}, 403),
    ],
)  # fmt: skip
def test_a_session_is_not_enough_for_what_another_site_sends(
    client_as: Callable[..., TestClient], submit: Callable[..., int], headers: dict[str, str], status: int
) -> None:
    seqno = submit("Email,Last name\na@example.com,A\n")
    client = client_as("user", cookie=True)
    assert client.post(f"/api/v1/batches/{seqno}/pause", headers=headers).status_code == status


def test_a_token_needs_no_header_of_ours_but_is_not_taken_from_a_foreign_page(
    client_as: Callable[..., TestClient], submit: Callable[..., int]
) -> None:
    path = f"/api/v1/batches/{submit('Email,Last name')}/pause"
    assert client_as("user").post(path).status_code == 428
    assert client_as("user").post(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_good_session_counts_beside_another_scheme_and_a_token_in_the_query_never(
    client_as: Callable[..., TestClient],
) -> None:
    client = client_as("user", cookie=True)
    assert client.get("/api/v1/batches", headers={"Authorization": "Basic dTpw"}).status_code == 200
    assert client_as(None).get("/api/v1/batches?token=user&_token=user").status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/static/desk.css", "/api/v1/batches", "/no/such/page", "/api/v1/openapi.json"]
)
@pytest.mark.parametrize("role", [None, "user"])
def test_every_answer_carries_the_headers(
    client_as: Callable[..., TestClient], role: str | None, path: str
) -> None:
    headers = client_as(role).get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert "max-age" in headers["Cache-Control"] or headers["Cache-Control"] == "no-store"


def test_an_error_of_ours_goes_out_through_the_gate_too(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rowledger.desk import batch_list

    def broken(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(batch_list, "page", broken)
    answer = client.get("/api/v1/batches")
    assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (500, "nosniff")
    assert answer.json()["detail"].startswith("Rowledger itself failed")
    assert "secret" not in answer.text
