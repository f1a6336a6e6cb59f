"""The pages and the API of contracts: status, history, what was known when, and what of it is personal."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from fastapi.testclient import TestClient

from rowledger import contracts, reference
from rowledger.contracts import StatusEntry
from rowledger.db import Connection, transaction
from rowledger.desk.contract_view import spans
from rowledger.model import Batch
from rowledger.reference import Status

ClientAs = Callable[..., TestClient]


@pytest.fixture
def known(submit: Callable[..., int], work: Callable[[int], Batch]) -> None:
    """Contract F1 of a contact, called in January, confirmed in March; February's result came last."""
    work(submit("Customer number,Email,First name,Last name\nK1,ada@example.com,Ada,Byron\n"))
    work(submit("Form ID;Sign-up date;Customer number\nF1;02-01-2026;K1\n", "contracts"))
    work(submit("F1;05-03-2026;30;;\n", "result_codes"))
    work(submit("F1;05-02-2026;20;;\n", "result_codes"))


def test_a_contract_shows_its_status_and_its_history_the_newest_first(
    client: TestClient, known: None
) -> None:
    page = client.get("/contracts", params={"domain": "DEMO", "form_id": " F1 "})
    assert page.status_code == 200
    history = page.text[page.text.index('class="history"') :]
    assert re.findall(r'<div class="when">([-\d]+)', history) == ["2026-03-05", "2026-02-05", "2026-01-01"]
    assert '<a href="/batches/4">#4</a>, record 1' in history
    assert history.index("2026-02-05") < history.index('href="/batches/4"') < history.index("2026-01-01")
    assert "the status that every contract begins with" in history
    assert "2026-01-01: 10 Signed; 2026-02-05: 20 Called; 2026-03-05: 30 Confirmed</title>" in page.text
    assert "sign up date was <bdi>2026-01-01</bdi>" in page.text
    assert "contact was <bdi>empty</bdi>" in page.text


def test_the_page_by_number_is_the_page_by_form_id(client: TestClient, known: None) -> None:
    by_key = client.get("/contracts", params={"domain": "DEMO", "form_id": "F1"}).text
    number = re.search(r'action="/contracts/(\d+)"', by_key)
    assert number
    assert client.get(f"/contracts/{number[1]}").text == by_key


def test_a_day_and_a_moment_ask_for_what_held_and_what_was_known(
    client: TestClient, known: None, connection: Connection
) -> None:
    found = contracts.profile(connection, "DEMO", "F1")
    address = f"/contracts/{found.contract_id}"
    assert (
        "the status <strong><bdi>20</bdi></strong>" in client.get(address, params={"on": "2026-02-10"}).text
    )
    asked = {"on": "2026-02-10", "known_at": found.history[2].recorded_at.isoformat()}
    told = client.get(address, params=asked).text
    assert "the status <strong><bdi>10</bdi></strong>" in told
    assert 'name="on" value="2026-02-10"' in told
    moment = found.history[2].recorded_at
    assert f"On 2026-02-10, as we knew it at {moment:%Y-%m-%d %H:%M} UTC" in told
    assert f'name="known_at" value="{moment:%Y-%m-%dT%H:%M}"' in told
    assert "this contract had no status." in client.get(address, params={"on": "2025-12-31"}).text
    api = client.get("/api/v1/contracts/DEMO/F1", params=asked).json()["as_of"]
    assert (api["on"], api["status"]["code"]) == ("2026-02-10", "10")


def test_a_question_that_is_no_date_is_told_at_its_field(client: TestClient, known: None) -> None:
    page = client.get("/contracts/1", params={"on": "1.2.2026", "known_at": "yesterday"})
    assert page.status_code == 422
    assert (
        '<p class="fault bad" id="fault-on"><bdi>&#34;1.2.2026&#34; is not a date; write it as in 2026-05-31.'
        in page.text
    )
    assert 'aria-describedby="fault-known_at"' in page.text
    api = client.get("/api/v1/contracts/DEMO/F1", params={"on": "1.2.2026", "known_at": "yesterday"})
    assert api.status_code == 422
    assert [one["field"] for one in api.json()["errors"]] == ["on", "known_at"]


@pytest.mark.parametrize(
    ("domain", "told"),
    [("DEMO", "There is no contract &#34;F9&#34;"), ("NONE", "There is no domain &#34;NONE&#34;")],
)
def test_a_contract_that_is_not_there_is_told_beside_the_question(
    client: TestClient, domain: str, told: str
) -> None:
    page = client.get("/contracts", params={"domain": domain, "form_id": "F9"})
    assert page.status_code == 404
    assert told in page.text
    assert 'value="F9"' in page.text
    assert client.get(f"/api/v1/contracts/{domain}/F9").status_code == 404
    assert client.get("/contracts/999").status_code == 404


def test_only_who_may_see_personal_data_sees_whose_contract_it_is(client_as: ClientAs, known: None) -> None:
    addresses = ("/contracts?domain=DEMO&form_id=F1", "/api/v1/contracts/DEMO/F1")
    for role, sees in (("user", True), ("viewer", False), ("clerk", False)):
        for address in addresses:
            answer = client_as(role).get(address)
            assert answer.status_code == 200
            assert ("Ada Byron" in answer.text) == sees, (role, address)
            assert ("K1" in answer.text) == sees
    told = client_as("viewer").get(addresses[1]).json()
    assert "contact_id" not in told
    assert "before" not in told["touches"][0]


def test_who_may_read_neither_kind_of_contract_sees_none(client_as: ClientAs, known: None) -> None:
    client = client_as("contact_only:user")
    for address in ("/contracts", "/contracts/1", "/api/v1/contracts/DEMO/F1"):
        assert client.get(address).status_code == 403
    assert ">Contracts<" not in client.get("/").text


def test_a_form_id_may_hold_slashes(
    client: TestClient, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit("Form ID;Sign-up date\n2026/00/17;02-01-2026\n", "contracts"))
    assert client.get("/api/v1/contracts/DEMO/2026%2F00%2F17").json()["form_id"] == "2026/00/17"
    assert "Contract <bdi>2026/00/17</bdi>" in client.get("/contracts?domain=DEMO&form_id=2026/00/17").text


def test_what_people_wrote_is_never_markup(client: TestClient, connection: Connection) -> None:
    told = {"code": "20", "phase": "NEW", "description": '<script>"x"</script>'}
    reference.change(connection, reference.make(Status, told), "DEMO")
    with transaction(connection) as cursor:
        cursor.execute(
            "UPDATE contract SET status_id = (SELECT status_id FROM contract_status WHERE code = '20')"
            " WHERE form_id = 'F1'; INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)"
            " SELECT contract_id, domain_id, status_id, '2026-02-01', 'timer' FROM contract WHERE form_id = 'F1'"
        )
    page = client.get("/contracts?domain=DEMO&form_id=F1").text
    assert "&lt;script&gt;" in page
    assert '<script>"x"' not in page


def entry(code: str, day: str, phase: str = "P") -> StatusEntry:
    return StatusEntry(
        code,
        code,
        phase,
        phase,
        False,
        False,
        date.fromisoformat(day),
        datetime.now(UTC),
        "timer",
        None,
        None,
    )


def test_the_picture_divides_the_time_among_the_statuses() -> None:
    told = spans(
        [
            entry("1", "2026-01-01"),
            entry("2", "2026-01-06", "Q"),
            entry("3", "2026-01-06"),
            entry("4", "2026-01-09"),
        ],
        date(2026, 1, 11),
    )
    assert [(one.code, one.x, one.width, one.colour) for one in told] == [
        ("1", 0, 50, 0), ("2", 50, 0, 1), ("3", 50, 30, 0), ("4", 80, 20, 0)
    ]  # fmt: skip
    assert [one.end for one in told] == [date(2026, 1, 6), date(2026, 1, 6), date(2026, 1, 9), None]


@pytest.mark.parametrize("today", ["2026-01-01", "2025-01-01"])
def test_the_picture_of_a_contract_of_today_or_of_tomorrow_is_full(today: str) -> None:
    (only,) = spans([entry("1", "2026-01-01")], date.fromisoformat(today))
    assert (only.x, only.width) == (0, 100)
    assert spans([], date.fromisoformat(today)) == []


def test_a_contract_without_any_status_says_so(client: TestClient, connection: Connection) -> None:
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO contract (domain_id, form_id, sign_up_date)"
            " SELECT domain_id, 'BARE', '2026-01-01' FROM domain WHERE code = 'OTHER'"
        )
    page = client.get("/contracts?domain=OTHER&form_id=BARE").text
    assert "No status has been given to this contract." in page
    assert "<svg" not in page
    assert client.get("/api/v1/contracts/OTHER/BARE").json()["current"] is None
