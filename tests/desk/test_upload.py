"""Uploads over HTTP: what a bad request gets, what a good one becomes, and that nothing is left of what failed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from fastapi.testclient import TestClient

from rowledger import batches, uploads
from rowledger.db import Connection, rows, transaction
from rowledger.desk import upload_api
from rowledger.settings import Settings

Post = Callable[..., Any]
CONTACTS = "Email,Last name\na@example.com,A\n"
OTHER = "Email,Last name\nb@example.com,B\n"


def count(connection: Connection) -> int:
    with transaction(connection) as cursor:
        return len(rows(cursor, "SELECT seqno FROM import_batch"))


def left(settings: Settings) -> list[str]:
    return [str(path) for path in settings.uploads.rglob("*.part")]


def test_an_upload_becomes_a_waiting_batch(post: Post, connection: Connection, settings: Settings) -> None:
    content = "Email,Last name\nä@example.com,A\n".encode()
    answer = post(content, {"file_name": "kontakte äöü.csv", "origin": ["FAIR", "WEB"]})
    assert answer.status_code == 201, answer.text
    batch = batches.get(connection, answer.json()["seqno"])
    assert (batch.file_name, batch.status, batch.uploaded_by, batch.uploaded_through) == (
        "kontakte äöü.csv",
        "waiting",
        "user",
        "api",
    )
    assert Path(batch.file_path).read_bytes() == content
    assert answer.headers["Location"] == f"/api/v1/batches/{batch.seqno}"
    assert left(settings) == []


@pytest.mark.parametrize(
    ("content", "query", "headers", "status", "says"),
    [
        # I2, A17, I6, I13, I14, I15
        (CONTACTS, {}, {"X_Content_SHA256": "0" * 64}, 422, "arrived changed"),
        (CONTACTS, {}, {"X_Content_SHA256": "abc"}, 400, "64 hexadecimal"),
        (CONTACTS, {}, {"Content_Encoding": "gzip"}, 415, "Content-Encoding"),
        (CONTACTS, {}, {"Content_Type": None}, 415, "text/csv"),
        (CONTACTS, {}, {"Content_Type": "text/html"}, 415, "text/csv"),
        (CONTACTS, {}, {"Content_Type": "application/json"}, 415, "text/csv"),
        (CONTACTS, {}, {"Content_Type": "multipart/form-data; boundary=x"}, 415, "not as a form"),
        (CONTACTS, {}, {"Content_Type": "application/x-www-form-urlencoded"}, 415, "not as a form"),
        (CONTACTS, {}, {"Idempotency_Key": None}, 400, "Idempotency-Key"),
        (CONTACTS, {}, {"Idempotency_Key": ""}, 400, "Idempotency-Key"),
        (CONTACTS, {}, {"Idempotency_Key": "k" * 256}, 400, "Idempotency-Key"),
        (CONTACTS, {}, {"Idempotency_Key": "a\tb"}, 400, "Idempotency-Key"),
        (b"", {}, {}, 422, "empty"),
        (iter([b""]), {}, {}, 422, "empty"),
        (b"\x1f\x8b\x08\x00" + b"x" * 100, {}, {}, 415, "gzip"),
        (b"PK\x03\x04" + b"x" * 100, {}, {}, 415, "zip archive"),
        (b"%PDF-1.7", {}, {}, 415, "PDF"),
        # what is asked for
        (CONTACTS, {"kind": "pigeon"}, {}, 422, 'no import kind "pigeon"'),
        (CONTACTS, {"kind": None}, {}, 422, "kind"),
        (CONTACTS, {"domain": "NOWHERE"}, {}, 422, 'no domain "NOWHERE"'),
        (CONTACTS, {"domain": "\0"}, {}, 422, "NUL"),
        (CONTACTS, {"template": "nothing"}, {}, 422, 'no template "nothing"'),
        (CONTACTS, {"template": "../templates/contacts"}, {}, 422, "no template"),
        (CONTACTS, {"template": "result_codes"}, {}, 422, "not for contact"),
        (CONTACTS, {"file_name": ""}, {}, 422, "file_name"),
        (CONTACTS, {"file_name": "x" * 256}, {}, 422, "file_name"),
        (CONTACTS, {"origin": "NONE"}, {}, 422, 'origin "NONE" does not exist'),
        (CONTACTS, {"origin": "OLD"}, {}, 422, "not active"),
        (CONTACTS, {"subscription": ["FAX"]}, {}, 422, "cannot be chosen"),
        (CONTACTS, {"again": "perhaps"}, {}, 422, "again"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_a_sentence_and_leaves_nothing(
    post: Post, connection: Connection, settings: Settings,
    content: Any, query: dict[str, Any], headers: dict[str, Any], status: int, says: str,
) -> None:  # fmt: skip
    answer = post(content, query, **headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]
    assert (count(connection), left(settings)) == (0, [])


@pytest.mark.parametrize(("size", "status"), [(9_999, 201), (10_000, 201), (10_001, 413)])
@pytest.mark.parametrize("announced", [True, False])
def test_the_size_is_limited_whether_it_is_announced_or_not(
    app: Any,
    client: TestClient,
    settings: Settings,
    connection: Connection,
    size: int,
    status: int,
    announced: bool,
) -> None:
    object.__setattr__(app.state.desk.settings, "max_upload_bytes", 10_000)
    content = (CONTACTS * 1000).encode()[:size]
    given = content if announced else (content[at : at + 1000] for at in range(0, size, 1000))
    answer = client.post("/api/v1/batches", params=_query(), content=given, headers=_headers("k"))
    assert answer.status_code == status, answer.text
    assert (count(connection), left(settings)) == (int(status == 201), [])


def _query() -> dict[str, str]:
    return {"kind": "contact", "domain": "DEMO", "template": "contacts", "file_name": "c.csv"}


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "text/csv", "Idempotency-Key": key}


def test_the_same_key_again_is_the_same_batch(post: Post, connection: Connection) -> None:
    first, second = post(CONTACTS), post(CONTACTS)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["seqno"] == second.json()["seqno"]
    assert count(connection) == 1


@pytest.mark.parametrize(
    ("content", "query"),
    [(OTHER, {}), (CONTACTS, {"file_name": "other.csv"}), (CONTACTS, {"origin": ["WEB"]})],
)
def test_the_same_key_for_something_else_is_refused(
    post: Post, connection: Connection, content: str, query: Any
) -> None:
    assert post(CONTACTS).status_code == 201
    answer = post(content, query)
    assert (answer.status_code, count(connection)) == (422, 1)
    assert "belongs to import batch" in answer.json()["detail"]


def test_keys_are_each_users_own(
    post: Post, client_as: Callable[..., TestClient], connection: Connection
) -> None:
    assert post(CONTACTS).status_code == 201
    assert post(OTHER, as_=client_as("op")).status_code == 201
    assert count(connection) == 2


def test_the_same_file_is_noticed_and_can_be_taken_all_the_same(post: Post, connection: Connection) -> None:
    seqno = post(CONTACTS).json()["seqno"]
    answer = post(CONTACTS, Idempotency_Key="key-2")
    assert (answer.status_code, answer.json()["seqno"]) == (409, seqno)
    assert f"as import batch {seqno}" in answer.json()["detail"]
    assert post(CONTACTS, {"again": "true"}, Idempotency_Key="key-2").status_code == 201
    assert count(connection) == 2


def test_a_key_whose_upload_is_still_running_is_refused(post: Post, connection: Connection) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield CONTACTS.encode()
        arrived.set()
        go_on.wait(20)

    done: list[Any] = []
    first = threading.Thread(target=lambda: done.append(_streamed(post, slowly())))
    first.start()
    try:
        assert arrived.wait(20)
        assert post(CONTACTS).status_code == 409
    finally:
        go_on.set()
        first.join(20)
    assert done[0].status_code == 201
    assert count(connection) == 1


def _streamed(post: Post, parts: Iterator[bytes]) -> Any:
    return post(parts)


def test_a_key_is_free_again_after_its_upload_failed(post: Post) -> None:
    assert post(CONTACTS, X_Content_SHA256="0" * 64).status_code == 422
    assert post(CONTACTS, X_Content_SHA256=hashlib.sha256(CONTACTS.encode()).hexdigest()).status_code == 201


@pytest.mark.parametrize(
    ("error", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EROFS, 503), (errno.EACCES, 503)]
)
def test_a_disk_that_takes_no_more_is_said_and_leaves_nothing(
    post: Post,
    connection: Connection,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    status: int,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(uploads.os, "fsync", full)
    answer = post(CONTACTS)
    assert answer.status_code == status
    assert (count(connection), left(settings)) == (0, [])


@pytest.mark.parametrize(("idle", "total"), [(0.2, 60.0), (60.0, 0.3)])
def test_a_body_that_does_not_come_is_not_waited_for(
    app: Any,
    settings: Settings,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    idle: float,
    total: float,
) -> None:
    import anyio

    monkeypatch.setattr(upload_api, "IDLE_SECONDS", idle)
    monkeypatch.setattr(upload_api, "TOTAL_SECONDS", total)
    answer = anyio.run(_raw, app, _drop_by_drop)
    assert answer["status"] == 408
    assert (count(connection), left(settings)) == (0, [])


def test_a_client_that_goes_away_leaves_nothing(app: Any, settings: Settings, connection: Connection) -> None:
    import anyio

    messages = iter(
        [{"type": "http.request", "body": CONTACTS.encode(), "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    assert anyio.run(_raw, app, receive)["status"] == 400
    assert (count(connection), left(settings)) == (0, [])


async def _drop_by_drop() -> Any:
    import anyio

    await anyio.sleep(0.15 if upload_api.TOTAL_SECONDS < 1 else 1)
    return {"type": "http.request", "body": b"x", "more_body": True}


async def _raw(app: Any, receive: Any) -> dict[str, Any]:
    """The start of the answer to an upload whose body comes as ``receive`` says."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/api/v1/batches", "raw_path": b"", "root_path": "", "app": app,
        "query_string": b"kind=contact&domain=DEMO&template=contacts&file_name=x.csv",
        "headers": [(b"content-type", b"text/csv"), (b"idempotency-key", b"k"), (b"authorization", b"Bearer user")],
        "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1),
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]


def test_what_killed_uploads_have_left_is_removed_after_a_day(post: Post, settings: Settings) -> None:
    settings.uploads.mkdir(parents=True)
    old, young = settings.uploads / "old.part", settings.uploads / "young.part"
    for path in (old, young):
        path.write_bytes(b"x")
    day = time.time() - uploads.ORPHAN_SECONDS - 1
    os.utime(old, (day, day))
    assert post(CONTACTS).status_code == 201
    assert (old.exists(), young.exists()) == (False, True)


def test_with_the_database_away_an_upload_is_refused_for_now(
    app: Any, client: TestClient, post: Post
) -> None:
    app.state.desk.connections._connect = lambda: _no_database()
    answer = post(CONTACTS)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    page = client.get("/")
    assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
    assert "Traceback" not in page.text


def _no_database() -> Any:
    from rowledger import db

    return db.connect("host=127.0.0.1 port=1")


def test_a_database_that_was_away_is_found_again(
    client: TestClient, connection: Connection, database_url: str
) -> None:
    assert client.get("/api/v1/batches").status_code == 200
    with contextlib.closing(psycopg2.connect(database_url)) as other:
        other.autocommit = True
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    assert client.get("/api/v1/batches").status_code == 503
    assert client.get("/api/v1/batches").status_code == 200


def test_paths_of_other_machines_are_taken_off_a_file_name(post: Post) -> None:
    assert post(CONTACTS, {"file_name": "C:\\fakepath\\list.csv"}).json()["file_name"] == "list.csv"
