"""The tab on the pages of runs and tasks: all that there is to read, on one page that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rowledger import batches
from rowledger.db import Connection
from rowledger.desk import run_page
from rowledger.model import Batch

ASKED = {"dag_id": "contact_import", "run_id": "scheduled__2026-01-01T00:00:00+00:00"}
RUN = ASKED["run_id"]
Work = Callable[[int], Batch]


@pytest.fixture
def imported(submit: Callable[..., int], work: Work) -> list[int]:
    """One import of which records are wrong, one that is wrong as a whole, one that waits."""
    some = submit("Email,Last name,Country\na@example.com,Ann,DE\nb@example.com,Secret,XX\n")
    broken = submit("Email;Last name\na@example.com;Ann\n")
    waiting = submit("Email,Last name\nc@example.com,Cid\n")
    work(some), work(broken)
    return [some, broken, waiting]


def numbers(page: str) -> list[int]:
    return [int(seqno) for seqno in re.findall(r"<h2>#(\d+) ", page)]


def test_the_tab_shows_the_imports_of_the_run_with_what_became_of_them(
    client: TestClient, runs: Any, imported: list[int]
) -> None:
    runs.taken[RUN] = imported
    page = client.get("/of-run", params=ASKED).text
    assert numbers(page) == imported
    assert "1 created, 1 rejected" in page
    assert "The fields are separated by semicolon" in page
    assert "still at work" in page
    assert "<code>not_in_set</code>" in page


def test_a_mapped_task_shows_its_own_import_with_its_records(
    client: TestClient, runs: Any, imported: list[int]
) -> None:
    runs.taken[RUN] = imported[::-1]
    page = client.get("/of-run", params=ASKED | {"map_index": "2"}).text
    assert numbers(page) == imported[:1]
    assert "still at work" not in page
    assert '<bdi class="cell">Secret</bdi>' in page
    assert numbers(client.get("/of-run", params=ASKED | {"map_index": "3"}).text) == []


@pytest.mark.parametrize("index", ["{MAP_INDEX}", "-1", ""])
def test_a_task_that_is_not_mapped_shows_those_of_the_run(
    client: TestClient, runs: Any, imported: list[int], index: str
) -> None:
    runs.taken[RUN] = imported
    assert numbers(client.get("/of-run", params=ASKED | {"map_index": index}).text) == imported


def test_what_the_engine_has_forgotten_the_imports_remember(
    client: TestClient, connection: Connection, imported: list[int]
) -> None:
    batches.reserve(connection, "contact", RUN, 10, lease_seconds=60)
    assert numbers(client.get("/of-run", params=ASKED).text) == imported[2:]


def test_a_run_that_took_on_many_shows_the_first_and_says_how_many_more(
    client: TestClient, runs: Any, imported: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_page, "BATCHES_SHOWN", 2)
    runs.taken[RUN] = imported
    page = client.get("/of-run", params=ASKED).text
    assert numbers(page) == imported[:2]
    assert "1 more" in page


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (ASKED, "No import belongs to this run"),
        (ASKED | {"run_id": ""}, "No import belongs to this run"),
        ({"dag_id": "<b>somebody's</b>", "run_id": "x"}, "&lt;b&gt;somebody&#39;s&lt;/b&gt;</bdi> imports no files"),
        ({}, "imports no files"),
    ],
)  # fmt: skip
def test_a_run_without_imports_says_so(client: TestClient, asked: dict[str, str], said: str) -> None:
    answer = client.get("/of-run", params=asked)
    assert (answer.status_code, said in answer.text) == (200, True)


def test_the_page_loads_nothing_and_leads_nowhere(client: TestClient, runs: Any, imported: list[int]) -> None:
    """The tab is a sandbox: no script runs, no style is fetched, and no link takes the session along."""
    runs.taken[RUN] = imported
    answer = client.get("/of-run", params=ASKED)
    assert re.findall(r"<(?:script|link|a|form|img|iframe)\b|\sstyle=", answer.text) == []
    assert "<style>" in answer.text


def test_the_one_style_in_a_page_is_the_one_that_its_policy_names(client: TestClient) -> None:
    import base64
    import hashlib

    for path in ("/of-run", "/no/such/page"):
        answer = client.get(path, headers={"Accept": "text/html"})
        style = answer.text.partition("<style>")[2].partition("</style>")[0]
        named = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"style-src 'self' 'sha256-{named}';" in answer.headers["Content-Security-Policy"]


def test_without_the_right_on_personal_data_no_value_of_a_file_is_shown(
    client_as: Callable[..., TestClient], runs: Any, imported: list[int]
) -> None:
    runs.taken[RUN] = imported
    for more in ({}, {"map_index": "0"}):
        page = client_as("viewer").get("/of-run", params=ASKED | more).text
        assert "<code>not_in_set</code>" in page
        assert "XX" not in page
        assert "Secret" not in page


def test_who_may_not_read_the_kind_is_told_so_without_a_link(
    client_as: Callable[..., TestClient], runs: Any, imported: list[int]
) -> None:
    runs.taken["other"] = imported
    client = client_as("contact_only:user")
    answer = client.get("/of-run", params={"dag_id": "contract_import", "run_id": "other"})
    assert (answer.status_code, "may not see these imports" in answer.text) == (403, True)
    assert "<a " not in answer.text
    mixed = client.get("/of-run", params=ASKED | {"run_id": "other"})
    assert numbers(mixed.text) == imported


def test_an_import_leads_to_its_own_tasks_whoever_else_the_run_took_on(
    client: TestClient, runs: Any, connection: Connection, imported: list[int]
) -> None:
    """Of three that a run took on, the first was taken on by another run since, after a pause."""
    batches.reserve(connection, "contact", RUN, 10, lease_seconds=60)
    waiting = imported[2]
    activity = f"/batches/{waiting}/activity"
    runs.taken[RUN] = [901, 902, waiting]
    assert "import_batch.load/mapped/2" in client.get(activity).text
    runs.taken[RUN] = [901, 902]
    assert "mapped" not in client.get(activity).text
    del runs.taken[RUN]
    assert "import_batch.load/mapped/0" in client.get(activity).text
