"""The API beside uploads: lists, cursors, filters, records, errors, downloads, control requests."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rowledger import batches, roll_back
from rowledger.db import Connection, transaction
from rowledger.model import Batch

CONTACTS = "Customer number,Email,Last name,Country\nK1,a@example.com,Ann,DE\nK2,b@example.com,Ben,XX\nK3,c@example.com,,DE\nK4,=1+1,D,DE\nK5,e@example.com,E,DE\nK6,f@example.com,F,DE\n"
Submit = Callable[..., int]
Work = Callable[[int], Batch]


@pytest.fixture
def many(submit: Submit, connection: Connection) -> list[int]:
    """25 waiting batches, some uploaded at the same moment, some that have ended."""
    seqnos = [submit(f"Email,Last name\nm{n}@example.com,M\n") for n in range(25)]
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET uploaded_at = timestamptz '2026-05-01' + seqno / 4 * interval '1 day'"
        )
        cursor.execute(
            "UPDATE import_batch SET status = 'executed', error_message = 'x', processed_at = now() + seqno / 3 * interval '1 s'"
            " WHERE seqno % 5 <> 0"
        )
    return seqnos


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["seqno", "uploaded_at", "processed_at"])
def test_pages_by_cursor_give_every_batch_once_in_order(
    client: TestClient, many: list[int], connection: Connection, sort: str, order: str
) -> None:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        told = client.get(
            "/api/v1/batches", params={"limit": 4, "sort": sort, "order": order, "cursor": cursor}
        ).json()
        found += told["batches"]
        cursor = told["next_cursor"]
        if not cursor:
            break
    assert sorted(b["seqno"] for b in found) == many
    keys = [(b[sort] or "9999", b["seqno"]) for b in found]
    assert keys == sorted(keys, reverse=order == "desc")


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": -1}, {"limit": 10**9}, {"limit": "x"}, {"sort": "file_name"}, {"order": "up"}, {"page": -1},
     {"status": "lost"}, {"q": "x" * 201}, {"kind": "y" * 10_000}, {"day": "yesterday"}, {"q": "a\0b"},
     {"cursor": "x"}, {"cursor": "W10"}, {"cursor": "bnVsbA"}, {"cursor": "WyJzZXFubyIsICIxIiwgdHJ1ZV0"},
     {"cursor": "WyJzZXFubyIsICI5OTk5OTk5OTk5OTk5OTk5OTk5OSIsIDFd"}, {"cursor": "WyJ1cGxvYWRlZF9hdCIsICJ4IiwgMV0", "sort": "uploaded_at"},
     {"cursor": "WyJzZXFubyIsICIxIiwgMV0", "sort": "uploaded_at"}],
)  # fmt: skip
def test_a_wrong_question_is_refused_in_a_sentence(client: TestClient, query: dict[str, Any]) -> None:
    answer = client.get("/api/v1/batches", params=query)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert answer.json()["detail"].endswith(".")
    assert "x" * 50 not in answer.text


@pytest.mark.parametrize("seqno", ["0", "-1", "x", "9999999999999999999999"])
def test_a_seqno_is_a_number_that_can_be_one(client: TestClient, seqno: str) -> None:
    assert client.get(f"/api/v1/batches/{seqno}").status_code == 422


def test_there_is_no_such_batch(client: TestClient) -> None:
    answer = client.get("/api/v1/batches/7")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no import batch 7.")


@pytest.mark.parametrize(
    ("query", "found"),
    [({"q": "100%"}, ["100%.csv"]), ({"q": "%"}, ["100%.csv"]), ({"q": "_"}, ["a_b.csv"]), ({"q": "\\"}, []),
     ({"q": "ÄRGER"}, ["ärger.csv"]), ({"q": "'; drop table import_batch; --"}, []), ({"q": "1"}, ["100%.csv"]),
     ({"q": "mia"}, ["ärger.csv"]), ({"uploader": "mia"}, ["ärger.csv"]), ({"domain": "OTHER"}, ["a_b.csv"]),
     ({"origin": "WEB"}, ["100%.csv"]), ({"kind": "contract"}, []), ({"template": "contacts", "q": "b"}, ["a_b.csv"]),
     ({"status": "executed"}, []), ({"day": "2026-05-02"}, ["ärger.csv"])],
)  # fmt: skip
def test_filters_find_what_they_say(
    client: TestClient,
    submit: Submit,
    connection: Connection,
    tmp_path: Any,
    query: dict[str, str],
    found: list[str],
) -> None:
    for name, options in [
        ("100%.csv", {"origins": ["WEB"]}),
        ("a_b.csv", {"domain": "OTHER"}),
        ("ärger.csv", {"by": "mia"}),
    ]:
        path = tmp_path / name
        path.write_text("Email,Last name\na@example.com,A\n")
        submit(path, **options)
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE import_batch SET uploaded_at = timestamptz '2026-05-02 23:59:59Z' WHERE uploaded_by = 'mia'"
        )
    told = client.get("/api/v1/batches", params=query).json()
    names = [b["file_name"] for b in told["batches"]]
    if query == {"q": "b"}:
        names = [n for n in names if n == "a_b.csv"]
    assert names == found


@pytest.mark.parametrize("group", ["status", "kind", "domain", "template", "origin", "uploader", "day", None])
def test_totals_of_groups_add_up(client: TestClient, submit: Submit, work: Work, group: str | None) -> None:
    work(submit(CONTACTS))
    submit("Email,Last name\nz@example.com,Z\n", by="mia")
    told = client.get("/api/v1/batches/totals", params={"group": group} if group else {}).json()["groups"]
    assert sum(g["batches"] for g in told) == 2
    assert sum(g["records"] for g in told) == 6
    assert sum(g["created"] for g in told) == 3
    assert sum(g["rejected"] for g in told) == 3
    assert sum(g["unfinished"] for g in told) == 1


def test_one_batch_is_told_with_a_tag_of_its_state(
    client: TestClient, submit: Submit, work: Work, connection: Connection
) -> None:
    seqno = submit(CONTACTS, origins=["WEB"])
    before = client.get(f"/api/v1/batches/{seqno}")
    with transaction(connection) as cursor:
        cursor.execute("UPDATE import_batch SET validated_records = 1")
    progressed = client.get(f"/api/v1/batches/{seqno}")
    with transaction(connection) as cursor:
        cursor.execute("UPDATE import_batch SET validated_records = 0")
    work(seqno)
    after = client.get(f"/api/v1/batches/{seqno}")
    assert before.headers["ETag"] == progressed.headers["ETag"] != after.headers["ETag"]
    assert after.json()["origins"] == ["WEB"]
    assert after.json()["counts"] == {"created": 3, "rejected": 3}
    assert "file_path" not in after.json()


def test_records_stream_as_lines_of_json_and_as_csv(client: TestClient, submit: Submit, work: Work) -> None:
    seqno = submit(CONTACTS)
    work(seqno)
    lines = [json.loads(line) for line in client.get(f"/api/v1/batches/{seqno}/records").text.splitlines()]
    assert [r["outcome"] for r in lines] == [
        "created",
        "rejected",
        "rejected",
        "rejected",
        "created",
        "created",
    ]
    assert [r["record_no"] for r in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[1]["raw"] == ["K2", "b@example.com", "Ben", "XX"]
    answer = client.get(
        f"/api/v1/batches/{seqno}/records", params={"format": "csv", "outcome": ["rejected", "created"]}
    )
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(r["record"], r["outcome"]) for r in table[:3]] == [
        ("1", "created"),
        ("2", "rejected"),
        ("3", "rejected"),
    ]
    assert "attachment" in answer.headers["Content-Disposition"]
    only = client.get(f"/api/v1/batches/{seqno}/records", params={"outcome": "created"}).text
    assert len(only.splitlines()) == 3
    assert client.get(f"/api/v1/batches/{seqno}/records", params={"outcome": "lost"}).status_code == 422


def test_errors_are_counted_by_rule_and_column_with_three_examples(
    client: TestClient, submit: Submit, work: Work
) -> None:
    right = "".join(f"R{n},r{n}@example.com,R,DE\n" for n in range(9))
    wrong = "".join(f"K{n},x{n}@example.com,,DE\n" for n in range(10, 15))
    seqno = submit(CONTACTS + wrong + right)
    work(seqno)
    for _ in range(2):  # counted, and kept
        told = client.get(f"/api/v1/batches/{seqno}/errors").json()
        assert [(r["rule"], r["column"], r["records"]) for r in told["reasons"]] == [
            ("required", "Last name", 6), ("format", "Email", 1), ("not_in_set", "Country", 1),
        ]  # fmt: skip
        assert told["reasons"][0]["share"] == pytest.approx(6 / 20, abs=1e-5)
        assert [e["record_no"] for e in told["reasons"][0]["examples"]] == [3, 7, 8]
        assert told["complete"]


def test_errors_are_counted_anew_when_a_batch_was_opened_again(
    client: TestClient, submit: Submit, work: Work, connection: Connection
) -> None:
    with transaction(connection) as cursor:
        cursor.execute("DELETE FROM reference_value WHERE list_name = 'countries'")
    from rowledger.errors import SetupError

    seqno = submit(CONTACTS)
    with pytest.raises(SetupError):
        work(seqno)
    assert client.get(f"/api/v1/batches/{seqno}/errors").json()["reasons"] == []
    with transaction(connection) as cursor:
        cursor.execute("INSERT INTO reference_value VALUES ('countries', 'DE')")
    work(seqno)
    assert len(client.get(f"/api/v1/batches/{seqno}/errors").json()["reasons"]) == 3


def test_downloads_are_the_file_the_rejects_and_the_outcomes(
    client: TestClient, submit: Submit, work: Work
) -> None:
    seqno = submit(CONTACTS)
    work(seqno)
    base = f"/api/v1/batches/{seqno}"
    assert client.get(f"{base}/file").text == CONTACTS
    rejects = list(csv.reader(io.StringIO(client.get(f"{base}/rejects.csv").text)))
    assert rejects[0] == ["Customer number", "Email", "Last name", "Country", "rowledger_reasons"]
    assert rejects[3][:4] == ["K4", "'=1+1", "D", "DE"]
    assert len(client.get(f"{base}/outcomes.csv").text.splitlines()) == 7


def test_what_is_not_kept_any_more_is_not_served_though_another_batch_needs_the_same_file(
    client: TestClient, submit: Submit, work: Work, connection: Connection
) -> None:
    seqno, other = submit(CONTACTS), submit(CONTACTS)
    work(seqno)
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO import_batch_removed (seqno, what, why) SELECT %s, what, 'retention'"
            " FROM unnest(ARRAY['file', 'cells']) AS what",
            (seqno,),
        )
    answers = {path: client.get(f"/api/v1/batches/{seqno}/{path}") for path in ("file", "rejects.csv")}
    assert {path: answer.status_code for path, answer in answers.items()} == {"file": 404, "rejects.csv": 409}
    assert all("kept any more" in answer.text for answer in answers.values())
    assert client.get(f"/api/v1/batches/{other}/file").text == CONTACTS
    answer = client.get(f"/batches/{seqno}/activity")
    assert answer.status_code == 200


def test_a_file_name_of_any_characters_is_safe_in_a_header(
    client: TestClient, submit: Submit, tmp_path: Any
) -> None:
    path = tmp_path / 'a";\r\nX: y ü€.csv'
    path.write_text(CONTACTS)
    answer = client.get(f"/api/v1/batches/{submit(path)}/file")
    assert answer.status_code == 200
    told = answer.headers["Content-Disposition"]
    assert "\n" not in told
    assert "X" not in answer.headers
    assert "filename*=UTF-8''a%22%3B" in told


def test_who_may_not_see_personal_data_sees_no_value_of_a_file(
    client_as: Callable[..., TestClient], submit: Submit, work: Work
) -> None:
    rows_ = "".join(f"K{n},secret{n}@example.com,,DE\n" for n in range(5))
    seqno = submit("Customer number,Email,Last name,Country\n" + rows_ + "K9,secret,,SECRETLAND\n")
    headless = submit("K9,secret@example.com,Secret,DE\n" * 2)
    assert work(seqno).failed
    assert "secret@example.com" in str(work(headless).error_message)
    viewer, user = client_as("viewer"), client_as("user")
    for path in (f"/api/v1/batches/{headless}", f"/batches/{headless}", f"/batches/{headless}/head",
                 f"/api/v1/batches/{headless}/events", f"/batches/{headless}/activity"):  # fmt: skip
        assert "it should name" in (said := viewer.get(path).text), path
        assert "secret" not in said.lower(), path
        assert "secret@example.com" in user.get(path).text
    base, page = f"/api/v1/batches/{seqno}", f"/batches/{seqno}"
    paths = [f"{base}", f"{base}/records", f"{base}/records?format=csv", f"{base}/errors", f"{base}/events", "/api/v1/batches",
             "/", page, f"{page}/head", f"{page}/records", f"{page}/errors", f"{page}/expectations", f"{page}/activity"]  # fmt: skip
    for path in paths:
        answer = viewer.get(path)
        assert answer.status_code == 200, path
        assert "secret" not in answer.text.lower(), path
        assert user.get(path).status_code == 200, path
    assert "SECRETLAND" in user.get(f"{page}/records").text
    assert "SECRETLAND" in user.get(f"{base}/records").text
    for path in ("file", "rejects.csv", "outcomes.csv"):
        assert viewer.get(f"{base}/{path}").status_code == 403


# Control -----------------------------------------------------------------------------------------------------------


def test_pause_resume_and_cancel_say_what_happened_and_who(
    client: TestClient, submit: Submit, connection: Connection
) -> None:
    seqno = submit(CONTACTS)
    tag = client.get(f"/api/v1/batches/{seqno}").headers["ETag"]
    for request, state in (("pause", "paused"), ("resume", "waiting"), ("cancel", "cancelled")):
        answer = client.post(
            f"/api/v1/batches/{seqno}/{request}", json={"why": "a <test>"}, headers={"If-Match": tag}
        )
        assert (answer.status_code, answer.json()["status"]) == (200, state), answer.text
        assert f"Import batch {seqno}" in answer.json()["message"]
        tag = answer.headers["ETag"]
    events = batches.events(connection, seqno)
    assert [(e["event"], e["by"]) for e in events[1:]] == [
        ("paused", "user"),
        ("resumed", "user"),
        ("cancelled", "user"),
    ]
    assert all("a <test>" in e["detail"] for e in events[1:])


def test_a_batch_is_cancelled_and_rolled_back_in_one_request(
    client: TestClient, submit: Submit, connection: Connection
) -> None:
    path = f"/api/v1/batches/{submit(CONTACTS)}/cancel"
    refused = client.post(path, json={"roll_back": True}, headers={"If-Match": "*"})
    assert (refused.status_code, "Say why" in refused.json()["detail"]) == (422, True)
    assert batches.get(connection, 1).status == "waiting"
    assert (
        client.post(
            path, json={"roll_back": True, "why": "wrong file"}, headers={"If-Match": "*"}
        ).status_code
        == 200
    )
    found = roll_back.of(connection, 1)
    assert found
    assert (found.asked_by, found.why) == ("user", "wrong file")


def test_what_has_ended_can_be_rolled_back(
    client: TestClient, submit: Submit, work: Work, connection: Connection
) -> None:
    seqno = submit(CONTACTS)
    path = f"/api/v1/batches/{seqno}/roll-back"
    assert client.post(path, json={"why": "x"}, headers={"If-Match": "*"}).status_code == 409
    work(seqno)
    assert client.post(path, json={"why": "x"}, headers={"If-Match": "*"}).status_code == 202
    assert roll_back.of(connection, seqno)


@pytest.mark.parametrize(
    "request_", ["pause", "resume", "cancel", "give-up", "reprocess", "roll-back", "run-now"]
)
def test_a_request_needs_to_have_seen_the_state_it_changes(
    client: TestClient, submit: Submit, request_: str
) -> None:
    path = f"/api/v1/batches/{submit(CONTACTS)}/{request_}"
    assert client.post(path).status_code == 428
    stale = client.post(path, headers={"If-Match": '"0123456789abcdef"'})
    assert (stale.status_code, "has changed since" in stale.json()["detail"]) == (412, True)
    assert client.get(path).status_code == 405


def test_what_is_not_possible_is_said(client: TestClient, submit: Submit, work: Work) -> None:
    seqno = submit(CONTACTS)
    any_state = {"If-Match": "*"}
    refused = client.post(f"/api/v1/batches/{seqno}/reprocess", json={"template": "old"}, headers=any_state)
    assert refused.status_code == 409
    work(seqno)
    for request in ("pause", "resume", "cancel", "run-now"):
        answer = client.post(f"/api/v1/batches/{seqno}/{request}", headers=any_state)
        assert answer.status_code == 409, request
        assert answer.json()["detail"].endswith(".")


@pytest.mark.parametrize("version", ["old", "current"])
def test_a_file_is_taken_once_more(client: TestClient, submit: Submit, work: Work, version: str) -> None:
    seqno = submit(CONTACTS)
    work(seqno)
    answer = client.post(
        f"/api/v1/batches/{seqno}/reprocess", json={"template": version}, headers={"If-Match": "*"}
    )
    assert answer.status_code == 201
    assert (answer.json()["parent_seqno"], answer.json()["status"]) == (seqno, "waiting")
    assert client.get(f"/api/v1/batches/{seqno}").json()["children"] == [answer.json()["seqno"]]


def test_taking_a_batch_once_more_with_the_same_key_makes_one_batch(
    client: TestClient, submit: Submit, work: Work
) -> None:
    seqno = submit("Email,Last name,Country\na@example.com,A,XX\n")
    work(seqno)
    mended = {
        "headers": {"Content-Type": "text/csv"},
        "content": "Email,Last name,Country\na@example.com,A,DE\n",
    }
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "night": ("reprocess", {"json": {"template": "old"}}), "day": ("rerun", {}), "noon": ("rerun", mended),
    }  # fmt: skip

    def ask(key: str, what: str, given: dict[str, Any]) -> Any:
        headers = {"If-Match": "*", "Idempotency-Key": key} | given.get("headers", {})
        return client.post(f"/api/v1/batches/{seqno}/{what}", **(given | {"headers": headers}))

    for key, request in requests.items():
        first, again = ask(key, *request), ask(key, *request)
        assert (first.status_code, again.status_code) == (201, 201), first.text
        assert first.json()["seqno"] == again.json()["seqno"]
    assert len(client.get(f"/api/v1/batches/{seqno}").json()["children"]) == len(requests)
    other = ask("night", "reprocess", {"json": {"template": "current"}})
    assert (other.status_code, "with a key of its own" in other.json()["detail"]) == (422, True)
    assert ask("day", *requests["noon"]).status_code == 422
    assert ask("no key", *requests["day"]).status_code == 422
    assert len(client.get(f"/api/v1/batches/{seqno}").json()["children"]) == len(requests)


def test_run_now_starts_a_run_of_the_batches_kind(client: TestClient, submit: Submit, runs: Any) -> None:
    seqno = submit(CONTACTS)
    answer = client.post(f"/api/v1/batches/{seqno}/run-now", headers={"If-Match": "*"})
    assert (answer.status_code, runs.started) == (202, [("contact", "user")])


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"why": "a", "why": "b"}', {}, 422),
        (b'{"why": NaN}', {}, 422),
        (b'{"why": "\\ud800"}', {}, 422),
        (b'{"why": 1}', {}, 422),
        (b'{"why": "x", "more": 1}', {}, 422),
        (b'{"why": "' + b"x" * 501 + b'"}', {}, 422),
        (b"[" * 50_000, {}, 422),
        (b"[]", {}, 422),
        (b"{", {}, 422),
        (b"\xff", {}, 422),
        (b'"' + b"x" * 70_000 + b'"', {}, 413),
        (b'{"why": "x"}', {"Content-Type": "text/plain"}, 415),
        (b"why=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)  # fmt: skip
def test_a_body_that_is_no_proper_json_changes_nothing(
    client: TestClient,
    submit: Submit,
    connection: Connection,
    body: bytes,
    headers: dict[str, str],
    status: int,
) -> None:
    seqno = submit(CONTACTS)
    told = {"Content-Type": "application/json", "If-Match": "*"} | headers
    answer = client.post(f"/api/v1/batches/{seqno}/pause", content=body, headers=told)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert batches.get(connection, seqno).status == "waiting"


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"sort": "uploaded_at"}, {"order": "asc"}, {"before": 0}])
def test_before_a_seqno_is_for_lists_by_seqno_alone(client: TestClient, query: dict[str, Any]) -> None:
    answer = client.get("/api/v1/batches", params={"before": 5} | query)
    assert (answer.status_code, "before" in answer.json()["detail"]) == (422, True)


def test_a_batch_of_a_list_can_be_asked_something_of_in_the_state_in_which_it_was_listed(
    client: TestClient, submit: Submit
) -> None:
    seqno = submit(CONTACTS)
    (listed,) = client.get("/api/v1/batches").json()["batches"]
    assert listed["etag"] == client.get(f"/api/v1/batches/{seqno}").headers["ETag"]
    pause = (f"/api/v1/batches/{seqno}/pause", {"If-Match": listed["etag"]})
    assert [client.post(pause[0], headers=pause[1]).status_code for _ in range(2)] == [200, 412]


@pytest.mark.parametrize(
    ("headers", "content", "status", "says"),
    [
        ({}, b"", 428, "If-Match"),
        ({"If-Match": '"x"'}, b"", 412, "has changed"),
        ({"If-Match": "*"}, b"a,b\n", 415, "text/csv"),
        ({"If-Match": "*", "Content-Type": "application/json"}, b"{}", 415, "text/csv"),
        ({"If-Match": "*", "Content-Type": "text/csv", "Content-Encoding": "gzip"}, b"x", 415, "Content-Encoding"),
        ({"If-Match": "*", "Content-Type": "text/csv"}, b"", 422, "empty"),
        ({"If-Match": "*", "Content-Type": "text/csv"}, b"x" * 1001, 413, "larger"),
        ({"If-Match": "*", "Content-Type": "text/csv"}, b"PK\x03\x04", 415, "zip archive"),
        ({"If-Match": "*", "Content-Type": "text/csv", "X-Content-SHA256": "0" * 64}, b"x", 422, "arrived changed"),
        ({"If-Match": "*"}, b"", 409, "has no rejected records"),
    ],
)  # fmt: skip
def test_a_rerun_that_cannot_be_is_refused_and_leaves_nothing(
    app: Any, client: TestClient, submit: Submit, work: Work, settings: Any, connection: Connection,
    headers: dict[str, str], content: bytes, status: int, says: str,
) -> None:  # fmt: skip
    object.__setattr__(app.state.desk.settings, "max_upload_bytes", 1000)
    seqno = submit("Customer number,Email,Last name\nK1,a@example.com,A\n")
    assert client.post(f"/api/v1/batches/{seqno}/rerun", headers={"If-Match": "*"}).status_code == 409
    work(seqno)
    before = [path for path in settings.uploads.rglob("*") if path.is_file()]
    answer = client.post(f"/api/v1/batches/{seqno}/rerun", headers=headers, content=content)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True)
    assert batches.children(connection, seqno) == []
    assert [path for path in settings.uploads.rglob("*") if path.is_file()] == before


def test_nothing_in_an_answer_comes_from_the_host_that_a_caller_says(
    client: TestClient, submit: Submit
) -> None:
    seqno = submit(CONTACTS)
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
    for path in (
        "/",
        f"/batches/{seqno}",
        f"/batches/{seqno}/",
        "/new",
        "/static/desk.css",
        f"/api/v1/batches/{seqno}",
    ):
        answer = client.get(path, headers=evil)
        assert "evil" not in answer.text + str(answer.headers), path
