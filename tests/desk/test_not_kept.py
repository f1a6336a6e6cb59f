"""Whatever is not kept any more says so wherever it would be, and shows what is left."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from fastapi.testclient import TestClient

from rowledger import contacts, housekeeping, pipeline
from rowledger.db import Connection, transaction
from rowledger.model import Batch
from rowledger.retention import Retention
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
CONTACTS = "Customer number,Email,Last name,Country\nK1,a@example.com,Ann,DE\nK2,b@example.com,Ben,XX\n"


@pytest.fixture
def seqno(submit: Submit, work: Work, connection: Connection) -> int:
    seqno = work(submit(CONTACTS)).seqno
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO import_batch_removed (seqno, what, why, days) VALUES (%s, 'ledger', 'retention', 30)",
            (seqno,),
        )
    return seqno


def test_whoever_asks_for_the_records_is_told_that_they_are_not_kept(client: TestClient, seqno: int) -> None:
    sentence = (
        f"The records of import batch {seqno} are not kept any more; its domain keeps them for 30 days."
    )
    base = f"/api/v1/batches/{seqno}"
    etag = {"If-Match": client.get(base).headers["ETag"]}
    mended = {"records": [{"record_no": 2, "cells": ["K2", "b@example.com", "Ben", "DE"]}]}
    answers = [
        *(
            client.get(f"{base}/{path}")
            for path in ("records", "records?format=csv", "outcomes.csv", "rejects.csv")
        ),
        client.get(f"/batches/{seqno}/mend"),
        client.post(f"{base}/mended", json=mended),
        client.post(f"{base}/mended?check=true", json=mended),
        client.post(f"{base}/rerun", headers=etag),
        client.post(f"{base}/roll-back", json={"why": "wrong file"}, headers=etag),
    ]
    assert [answer.status_code for answer in answers] == [409] * len(answers)
    assert all(sentence in answer.text for answer in answers)
    assert sentence in client.get(f"/batches/{seqno}/records").text


def test_its_page_shows_counts_and_reasons_and_offers_nothing_that_needs_the_records(
    client: TestClient, seqno: int
) -> None:
    page = client.get(f"/batches/{seqno}").text
    assert "The records of this import are not kept any more" in page
    assert all(
        word not in page for word in ("Mend here", 'data-ask="ask-roll-back"', "rejects.csv", "outcomes.csv")
    )
    assert f"{seqno}/file" in page
    assert client.get(f"/api/v1/batches/{seqno}").json()["counts"] == {"created": 1, "rejected": 1}
    errors = client.get(f"/batches/{seqno}/errors").text
    assert "not_in_set" in errors
    assert "/mend" not in errors
    assert client.get(f"/batches/{seqno}/expectations").status_code == 200


@pytest.fixture
def let_go(submit: Submit, work: Work, connection: Connection, settings: Settings) -> dict[str, str]:
    """Contract F8 had two statuses and contact K1 two opt-ins in years that are not kept any more; the days of F8's."""
    year = datetime.now(UTC).year
    days = {"first": f"{year - 4}-05-01", "kept": f"{year - 4}-07-01", "new": f"{year - 1}-02-01"}
    first, kept, new = (date.fromisoformat(day).strftime("%d-%m-%Y") for day in days.values())
    work(submit(f"Form ID;Sign-up date;Customer number\nF8;{first};\n", "contracts"))
    work(submit(f"F8;{kept};20;;\nF8;{new};30;;\n", "result_codes"))
    work(submit("Customer number,Email,Last name,Subscribe to\nK1,a@example.com,Ann,NEWS\n"))
    with transaction(connection) as cursor:
        past = {"past": f"{4 * 366} days"}
        cursor.execute(
            "SELECT open_history('subscription_history', domain_id, array_agg((recorded_at - %(past)s::interval)::date))"
            " FROM subscription_history GROUP BY domain_id",
            past,
        )
        cursor.execute("UPDATE subscription_history SET recorded_at = recorded_at - %(past)s::interval", past)
    retention = Retention.model_validate({"others": {"history": 2 * 365}})
    assert housekeeping.clean(pipeline.Worker(connection, settings, "night"), retention)
    return days


def test_a_contract_says_from_when_on_its_history_is_kept(client: TestClient, let_go: dict[str, str]) -> None:
    page = client.get("/contracts", params={"domain": "DEMO", "form_id": "F8"}).text
    assert (
        f"Earlier entries are not kept any more. Up to {let_go['kept']} it had had: <bdi>10</bdi>, <bdi>20</bdi>."
        in page
    )
    (address,) = set(re.findall(r'action="(/contracts/\d+)"', page))
    sentence = f"The history of contract &#34;F8&#34; is not kept before {let_go['kept']}"
    asked = client.get(address, params={"on": let_go["first"]})
    assert (asked.status_code, sentence in asked.text) == (200, True)
    assert sentence not in client.get(address, params={"on": let_go["new"]}).text
    told = client.get("/api/v1/contracts/DEMO/F8", params={"on": let_go["first"]}).json()
    assert told["had"] == ["10", "20"]
    assert (told["as_of"]["status"], "is not kept before" in told["as_of"]["not_kept"]) == (None, True)
    told = client.get("/api/v1/contracts/DEMO/F8", params={"on": let_go["new"]}).json()
    assert (told["as_of"]["status"]["code"], told["as_of"]["not_kept"]) == ("30", None)


def test_a_contact_says_from_when_on_its_subscriptions_are_kept(
    client: TestClient, let_go: dict[str, str], connection: Connection
) -> None:
    address = f"/contacts/{contacts.find(connection, 'DEMO', 'K1')}"
    kept = f"{datetime.now(UTC).year - 2}-01-01"
    assert (
        f"Kept from {kept} on; of what came before, the last change of each list." in client.get(address).text
    )
    assert client.get("/api/v1/contacts/DEMO/K1").json()["history_kept_from"] == kept
