"""Checks: what an import would do is told before anything is uploaded, and nothing of it is kept."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rowledger.db import Connection, row, transaction
from rowledger.desk import checks, upload_api
from rowledger.errors import JudgedTooLong, NotJudged
from rowledger.judges import Case, Judgement
from rowledger.settings import Settings

Post, Client = Callable[..., Any], Callable[..., TestClient]
QUERY = {"kind": "contact", "domain": "DEMO", "template": "contacts", "file_name": "contacts.csv"}
CSV = {"Content-Type": "text/csv"}
CONTACTS = (
    "Customer number,Email,Last name,Phone,Roles,Country,Note\n"
    "K1,Ann@Example.com,Ann,0171 1234567,customer|press,DE,x\nK2,b@example.com,Ben,,,XX,\nK3,c@example.com,,,,DE,\nK4,d@example.com\n"
)


@pytest.fixture
def check(client: TestClient) -> Post:
    def check(
        content: str | bytes = CONTACTS,
        path: str = "/api/v1/checks",
        as_: Any = None,
        sha256: str | None = None,
        **query: Any,
    ) -> Any:
        headers = CSV | ({"X-Content-SHA256": sha256} if sha256 else {})
        sent = content.encode() if isinstance(content, str) else content
        return (as_ or client).post(path, params=QUERY | query, content=sent, headers=headers)

    return check


def test_a_check_says_what_an_import_would_do_and_keeps_nothing(
    check: Post, connection: Connection, settings: Settings
) -> None:
    answer = check(first=10)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["records_in_file"], told["complete"], told["uploaded_before"]) == (4, True, None)
    # three of four are wrong, more than the template allows
    assert (told["error_rule"], told["counts"]) == ("too_many_rejects", {"rejected": 3, "unprocessed": 1})
    assert [column["field"] for column in told["columns"]][:2] == ["external_id", "email"]
    assert told["columns"][-1] == {"name": "Note", "field": None}
    assert [record["cells"] for record in told["records"]][1:3] == [
        ["K2", "b@example.com", "Ben", "", "", "XX", ""], ["K3", "c@example.com", "", "", "", "DE", ""]]  # fmt: skip
    assert told["records"][3]["cells"] == ["K4", "d@example.com"]
    assert {reason["rule"]: reason["records"] for reason in told["reasons"]} == {
        "not_in_set": 1,
        "required": 1,
        "too_few_fields": 1,
    }
    with transaction(connection) as cursor:
        assert row(
            cursor, "SELECT (SELECT count(*) FROM import_batch) + (SELECT count(*) FROM contact) AS rows"
        ) == {"rows": 0}
    assert not any(settings.home.rglob("*.csv"))
    assert [path.name for path in settings.scratch.iterdir()] == []
    assert not settings.uploads.exists()


def test_the_values_that_are_read_are_told_beside_the_cells(check: Post) -> None:
    told = check("\n".join(CONTACTS.split("\n")[:2]), first=1).json()
    (record,) = told["records"]
    assert (record["outcome"], record["cells"][3]) == ("created", "0171 1234567")
    assert record["values"]["phone"] == "+491711234567"
    page = check("\n".join(CONTACTS.split("\n")[:2]), "/new/check", first=1).text
    assert "→ <bdi>+491711234567</bdi>" in page
    assert "→ <bdi>customer, press</bdi>" in page
    assert "left out" in page


def test_of_a_part_only_whole_records_are_told_and_no_share_of_the_whole(check: Post) -> None:
    told = check(CONTACTS + 'K5,e@example.com,"Ev', part=True, first=10).json()
    assert (told["complete"], told["error_message"]) == (False, None)
    assert [record["outcome"] for record in told["records"]] == [
        "created",
        "rejected",
        "rejected",
        "rejected",
    ]
    page = check(CONTACTS + "K5,e@exam", "/new/check", part=True, first=10).text
    assert "The first 4 records" in page
    assert "Last name is empty, but must be filled in." in page


def test_a_file_that_is_wrong_as_a_whole_says_so(check: Post) -> None:
    told = check("Nonsense,Header\n1,2\n", first=10).json()
    assert (told["error_rule"], told["records_in_file"], told["records"]) == ("header_mismatch", None, [])
    page = check('Email,Last name\n"a@example.com,A\nb@example.com,B\n', "/new/check", part=True).text
    assert "The import would fail." in page
    assert "opened and never closed" in page


def test_the_same_bytes_uploaded_before_are_noticed_with_a_link(check: Post, post: Post) -> None:
    seqno = post(CONTACTS).json()["seqno"]
    assert check().json()["uploaded_before"] == seqno
    assert f'href="/batches/{seqno}"' in check(path="/new/check").text
    digest = hashlib.sha256(CONTACTS.encode()).hexdigest()
    assert check(CONTACTS[:150], part=True).json()["uploaded_before"] is None
    assert check(CONTACTS[:150], part=True, sha256=digest).json()["uploaded_before"] == seqno
    assert check(CONTACTS + "K5,e@example.com,E,,,DE,\n").json()["uploaded_before"] is None


def test_without_the_right_on_personal_data_no_value_is_told(check: Post, client_as: Client) -> None:
    for path in ("/api/v1/checks", "/new/check"):
        text = check(path=path, as_=client_as("clerk"), first=10).text
        assert "required" in text
        for value in ("K1", "Ann", "XX", "1234567"):
            assert value not in text, (path, value)


@pytest.mark.parametrize(
    ("content", "query", "headers", "status", "says"),
    [
        (CONTACTS, {"domain": "NOWHERE"}, {}, 422, "Domains are: DEMO, OTHER"),
        (CONTACTS, {"origin": "OLD"}, {}, 422, "not active"),
        (CONTACTS, {"template": "nothing"}, {}, 422, "no template"),
        (CONTACTS, {"first": 501}, {}, 422, "first"),
        (CONTACTS, {}, {"Content-Type": "text/html"}, 415, "text/csv"),
        (CONTACTS, {}, {"X-Content-SHA256": "abc"}, 400, "64 hexadecimal"),
        (CONTACTS, {}, {"X-Content-SHA256": "0" * 64}, 422, "arrived changed"),
        (b"", {}, {}, 422, "empty"),
        (b"PK\x03\x04" + b"x" * 100, {}, {}, 415, "zip archive"),
        (b"x" * 1_000_001, {"part": True}, {}, 413, "1,000,000"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/checks", "/new/check"])
def test_what_cannot_be_checked_is_refused_with_a_sentence(
    client: TestClient,
    settings: Settings,
    path: str,
    content: Any,
    query: Any,
    headers: Any,
    status: int,
    says: str,
) -> None:
    answer = client.post(path, params=QUERY | query, content=content, headers=CSV | headers)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert not settings.scratch.exists() or list(settings.scratch.iterdir()) == []


class Failing:
    """A judge that comes to no end."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def ask(self, case: Case, seconds: float, stop: Any = None) -> Judgement:
        raise self._error

    def warm(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("judge", "status", "says"),
    [
        (Failing(NotJudged("As many checks run as may.")), 503, "Try again in a moment"),
        (Failing(JudgedTooLong()), 422, "took too long"),
        (None, 409, "Nothing here can check"),
    ],
)
def test_a_check_that_comes_to_no_end_says_so_and_leaves_nothing(
    app: Any, check: Post, settings: Settings, judge: Any, status: int, says: str
) -> None:
    object.__setattr__(app.state.desk, "judge", judge)
    answer = check()
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True)
    assert list(settings.scratch.iterdir()) == []


def test_what_killed_servers_have_left_of_checks_is_removed(check: Post, settings: Settings) -> None:
    old, young = settings.scratch / "check-old", settings.scratch / "check-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    then = time.time() - checks.ORPHAN_SECONDS - 1
    os.utime(old, (then, then))
    assert check().status_code == 200
    assert (old.exists(), young.exists()) == (False, True)


def test_a_check_that_nobody_waits_for_any_more_is_stopped(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    monkeypatch.setattr(checks, "GRACE_SECONDS", 0.0)
    stopped: list[bool] = []

    class Waiting(Failing):
        def ask(self, case: Case, seconds: float, stop: Any = None) -> Judgement:
            stopped.append(stop.wait(60))
            raise NotJudged

    object.__setattr__(app.state.desk, "judge", Waiting(NotJudged()))
    messages = iter([{"type": "http.request", "body": CONTACTS.encode(), "more_body": False}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "POST", "path": "/api/v1/checks", "raw_path": b"", "root_path": "", "app": app,
        "query_string": b"kind=contact&domain=DEMO&template=contacts&file_name=x.csv",
        "headers": [(b"content-type", b"text/csv"), (b"authorization", b"Bearer user")],
        "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1),
    }  # fmt: skip
    anyio.run(app, scope, receive, send)
    assert stopped == [True]


def test_no_more_files_arrive_for_checks_than_may(check: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setattr(upload_api, "arriving", asyncio.Semaphore(0))
    answer = check()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
