"""Waiting records on the desk: what parked records wait for, to give up waiting, and who may see and do that."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import expect, sync_playwright

from rowledger import batches, ledger, parked, pipeline, reference, replay
from rowledger.db import Connection
from rowledger.model import Batch
from rowledger.reference import Reference
from rowledger.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
from serving import served

ClientAs = Callable[..., TestClient]
CODES = "F9;02-02-2026;20;;\nF9;03-02-2026;30;;\nF1;03-02-2026;77;<b>x</b>;\nF2;03-02-2026;20;;\n"
F9 = {"domain": "DEMO", "waits_for": "contract", "key": "F9", "why": "they never signed"}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """A template that parks."""
    folder = shutil.copytree(settings.templates, tmp_path / "templates")
    path = folder / "result_codes.yml"
    text = path.read_text(encoding="utf-8").replace("unknown_contract: reject", "unknown_contract: park")
    text = text.replace("unknown_status: ignore", "unknown_status: park").replace(
        "  max_rejected_share: 0.5\n", ""
    )
    path.write_text(text, encoding="utf-8")
    return dataclasses.replace(settings, templates=folder)


@pytest.fixture
def waiting(submit: Callable[..., int], work: Callable[[int], Batch]) -> list[int]:
    """Two batches: the first waits for contract F9 twice and for code 77, the second for F9."""
    return [work(submit(text, "result_codes")).seqno for text in (CODES, CODES.splitlines()[0])]


def of_api(client: TestClient, query: str = "") -> list[tuple[Any, ...]]:
    answer = client.get(f"/api/v1/parked{query}")
    assert answer.status_code == 200, answer.text
    return [(one["waits_for"], one["key"], one["records"], one["batches"]) for one in answer.json()["groups"]]


def give_up(client: TestClient, path: str, **told: Any) -> Any:
    return client.post(f"/api/v1/{path}", json=told, headers={"If-Match": "*"})


def sound(connection: Connection) -> bool:
    return [check for check in ledger.check(connection) if check["violations"]] == []


def test_what_waits_for_what_is_told(client: TestClient, waiting: list[int], connection: Connection) -> None:
    assert of_api(client) == [("contract", "F9", 3, [1, 2]), ("status", "77", 1, [1])]
    assert of_api(client, "?seqno=2") == [("contract", "F9", 1, [2])]
    assert of_api(client, "?kind=contact") == of_api(client, "?domain=OTHER") == []
    told = client.get("/api/v1/parked?limit=1").json()
    assert (len(told["groups"]), told["groups_in_all"], told["records_in_all"]) == (1, 2, 4)
    assert client.get("/api/v1/parked?domain=NONE").status_code == 422
    page = client.get("/parked").text
    assert "<strong>4</strong> records wait for 2 contracts and codes." in page
    assert 'aria-label="Give up waiting for contract F9"' in page
    assert "No record of import 77 waits." in client.get("/parked?seqno=77").text
    more = {"code": "DEMO", "name": "Demo", "contracts": [{"form_id": "F9", "sign_up_date": "2026-01-01"}]}
    reference.load(connection, Reference.model_validate({"domains": [more]}))
    page = client.get("/parked").text
    assert "It exists now: the next run replays them." in page
    assert "Give up waiting for contract F9" not in page


def test_what_is_given_up_everywhere_is_told_and_noted(
    client: TestClient, waiting: list[int], connection: Connection, settings: Settings
) -> None:
    answer = give_up(client, "parked/give-up?kind=contract_status", **F9)
    assert (answer.status_code, answer.json()) == (200, {
        "given_up": 3, "batches": [{"seqno": 1, "given_up": 2}, {"seqno": 2, "given_up": 1}],
        "message": "3 parked records are given up, of 2 import batches.",
    })  # fmt: skip
    last = batches.events(connection, 1)[-1]
    assert (last["event"], last["by"], last["detail"]) == (
        "given up",
        "user",
        "2 parked records: they never signed",
    )
    assert of_api(client) == [("status", "77", 1, [1])]
    assert client.get("/api/v1/batches/1").json()["replayed"] == {"given_up": 2, "parked": 1}
    lines = client.get("/api/v1/batches/1/rejects.csv").text.splitlines()
    assert [line.startswith('"F9";') for line in lines] == [True, True]
    answer = give_up(client, "parked/give-up?kind=contract_status", **F9)
    assert (answer.status_code, "No record of an import batch that has ended waits" in answer.text) == (
        409,
        True,
    )
    more = {"code": "DEMO", "name": "Demo", "contracts": [{"form_id": "F9", "sign_up_date": "2026-01-01"}]}
    reference.load(connection, Reference.model_validate({"domains": [more]}))
    assert replay.replay(pipeline.Worker(connection, settings, "tester")) == {}
    assert sound(connection)


def test_what_waits_of_one_batch_is_given_up(
    client: TestClient, waiting: list[int], connection: Connection
) -> None:
    told = {"why": "test data", "waits_for": "status", "key": "77"}
    answer = give_up(client, "batches/1/give-up", **told)
    assert (answer.status_code, answer.json()["given_up"], answer.json()["message"]) == (
        200, 1, "1 parked record is given up, of import batch 1.",
    )  # fmt: skip
    assert give_up(client, "batches/1/give-up", why="test data").json()["given_up"] == 2
    assert [parked.became(connection, seqno) for seqno in (1, 2)] == [{"given_up": 3}, {"parked": 1}]
    assert give_up(client, "batches/1/give-up", why="test data").status_code == 409
    assert give_up(client, "batches/2/give-up", why=" ").status_code == 422
    assert give_up(client, "batches/2/give-up", why="x", key="F9").status_code == 422
    assert client.post("/api/v1/batches/2/give-up", json={"why": "x"}).status_code == 428
    page = client.get("/batches/1").text
    assert "Of the parked records 3 were given up." in page
    assert "ask-give-up" not in page
    records = client.get("/batches/1/records").text
    assert records.count("→ given up") == 3
    assert records.count("Nobody waits for it any more: test data.") == 3


def test_what_changes_about_parked_records_reaches_an_open_page(
    client: TestClient, waiting: list[int]
) -> None:
    page = client.get("/batches/1").text
    assert "Of the parked records 3 still wait." in page
    seen = page.partition("/head?seen=")[2].partition('"')[0]
    assert client.get(f"/batches/1/head?seen={seen}").status_code == 204
    give_up(client, "batches/1/give-up", why="test data")
    assert "3 were given up" in client.get(f"/batches/1/head?seen={seen}").text


def test_who_may_not_see_personal_data_sees_no_key_and_who_may_not_write_gives_nothing_up(
    client_as: ClientAs, waiting: list[int], connection: Connection
) -> None:
    assert of_api(client_as("clerk")) == [("contract", None, 3, [1, 2]), ("status", None, 1, [1])]
    for role in ("viewer", "clerk"):
        page = client_as(role).get("/parked").text
        assert "F9" not in page
        assert "data-ask" not in page
    page = client_as("auditor").get("/parked").text
    assert ("F9" in page, "data-ask" in page) == (True, False)
    other = client_as("contact_only:user")
    assert of_api(other) == []
    assert "No record waits." in other.get("/parked").text
    for client in (client_as("auditor"), client_as("viewer"), other):
        assert give_up(client, "parked/give-up?kind=contract_status", **F9).status_code == 403
        assert give_up(client, "batches/1/give-up", why="x").status_code == 403
    assert give_up(client_as("clerk"), "batches/2/give-up", why="x").json()["given_up"] == 1
    assert parked.became(connection, 1) == {"parked": 3}


def test_a_person_gives_up_on_the_pages(app: FastAPI, waiting: list[int], connection: Connection) -> None:
    with served(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context()
        context.add_cookies([{"name": "_token", "value": "user", "url": address}])
        page = context.new_page()
        page.goto(f"{address}/operations")
        page.get_by_role("link", name="waiting records").click()
        page.get_by_role("button", name="Give up waiting for contract F9").click()
        page.get_by_role("dialog").get_by_label("Why?").fill("they never signed")
        page.get_by_role("dialog").get_by_role("button", name="Give up").click()
        expect(page.locator("#notice")).to_contain_text("3 parked records are given up, of 2 import batches.")
        expect(page.locator("#waiting")).to_contain_text("1 record waits for 1 contract or code.")
        page.get_by_role("link", name="#1").click()
        expect(page.locator(".became")).to_contain_text(
            "Of the parked records 1 still waits, 2 were given up."
        )
        page.get_by_role("button", name="Give up waiting").click()
        page.get_by_role("dialog").get_by_label("Why?").fill("no such code")
        page.get_by_role("dialog").get_by_role("button", name="Give up").click()
        expect(page.locator(".became")).to_contain_text("Of the parked records 3 were given up.")
        expect(page.get_by_role("button", name="Give up waiting")).to_have_count(0)
        page.get_by_role("tab", name="Activity").click()
        expect(page.locator("#tab")).to_contain_text("1 parked record: no such code")
        context.close()
        browser.close()
    assert parked.groups(connection, None, None, 10) == []
