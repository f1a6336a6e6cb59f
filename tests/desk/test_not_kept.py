"""A batch whose records are not kept any more says so wherever they would be, and shows what is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from rowledger.db import Connection, transaction
from rowledger.model import Batch

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
