"""The profile of a contact: everything that is known, who may see it, and that no address gives it away."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from rowledger.model import Batch

ClientAs = Callable[..., TestClient]
FILE = (
    "Customer number,Email,First name,Last name,City,Roles,Loyalty card,Campaigns,Subscribe to,Unsubscribe from\n"
    "K1,Ada@example.com,Ada,Byron,{city},{roles},{card},{origins},{lists},{outs}\n"
)


@pytest.fixture
def ada(submit: Callable[..., int], work: Callable[[int], Batch]) -> int:
    """A contact that two imports were about, with a contract."""
    work(
        submit(
            FILE.format(city="London", roles="customer", card="L-7", origins="FAIR", lists="NEWS", outs="")
        )
    )
    work(submit(FILE.format(city="Bath", roles="press", card="", origins="WEB", lists="OFFERS", outs="NEWS")))
    work(submit("Form ID;Sign-up date;Customer number\nF1;02-01-2026;K1\n", "contracts"))
    return 1


@pytest.mark.parametrize("key", ["K1", "ada@EXAMPLE.com", "  K1 "])
def test_a_contact_is_found_by_external_id_or_email_at_an_address_that_names_nobody(
    client: TestClient, ada: int, key: str
) -> None:
    found = client.get("/contacts", params={"domain": "DEMO", "key": key})
    assert (found.status_code, found.headers["Location"]) == (303, "/contacts/1")
    assert client.get("/api/v1/contacts/DEMO/" + key.strip()).json()["contact_id"] == 1


def test_the_profile_has_everything(client: TestClient, ada: int) -> None:
    page = client.get("/contacts/1").text
    assert "<h1><bdi>Ada Byron</bdi></h1>" in page
    assert re.findall(r'<span class="badge"><bdi>(\w+)</bdi></span>', page) == ["customer", "press"]
    for title, value in (("City", "Bath"), ("loyalty_card", "L-7"), ("Email", "Ada@example.com")):
        assert f'<dt><bdi>{title}</bdi></dt><dd class="lines"><bdi>{value}</bdi></dd>' in page
    origins = page[page.index("<h2>Origins") : page.index("<h2>Subscriptions")]
    assert origins.index("Trade fair") < origins.index('">first</span>') < origins.index("Web site")
    assert origins.count('">first</span>') == 1
    lists = page[page.index("<h2>Subscriptions") : page.index("<h2>Imports about")]
    assert re.findall(r">(opted in|opted out)</span>", lists) == ["opted out", "opted in"]
    assert re.findall(r"<li><strong>(in|out)</strong> <bdi>(\w+)", lists) == [
        ("in", "Offers"),
        ("out", "Newsletter"),
        ("in", "Newsletter"),
    ]
    records = page[page.index("<h2>Imports about") :]
    assert re.findall(r'<a href="/batches/(\d)">#', records) == ["2", "1"]
    assert "<bdi>City</bdi>: <del><bdi>London</bdi></del> → <ins><bdi>Bath</bdi></ins>" in records
    assert '<a href="/contracts/' in page[page.index("<h2>Contracts") : page.index("<h2>Origins")]


def test_the_api_has_the_same(client: TestClient, ada: int) -> None:
    told = client.get("/api/v1/contacts/DEMO/K1").json()
    assert (told["fields"]["city"], told["fields"]["attributes.loyalty_card"], told["fields"]["roles"]) == (
        "Bath",
        "L-7",
        ["customer", "press"],
    )
    assert [(one["code"], one["first"], one["seqno"]) for one in told["origins"]] == [
        ("FAIR", True, 1),
        ("WEB", False, 2),
    ]
    assert [one["form_id"] for one in told["contracts"]] == ["F1"]
    assert [one["seqno"] for one in told["records"]] == [2, 1]
    assert told["totals"] == {"records": 2, "subscription_history": 3, "contracts": 1}
    few = client.get("/api/v1/contacts/DEMO/K1?limit=1").json()
    assert ([one["seqno"] for one in few["records"]], few["totals"]["records"]) == ([2], 2)


def test_what_is_left_out_is_told_and_can_be_had(client: TestClient, ada: int) -> None:
    page = client.get("/contacts/1?limit=1").text
    assert "The newest 1 of 2 records." in page
    assert "The newest 1 of 3 changes." in page
    assert "The newest" not in client.get("/contacts/1?limit=1000").text


@pytest.mark.parametrize("role", ["viewer", "clerk"])
@pytest.mark.parametrize(
    "address", ["/contacts", "/contacts/1", "/contacts?domain=DEMO&key=K1", "/api/v1/contacts/DEMO/K1"]
)
def test_contacts_are_for_who_has_the_right_on_personal_data(
    client_as: ClientAs, ada: int, role: str, address: str
) -> None:
    answer = client_as(role).get(address)
    assert answer.status_code == 403
    assert "Ada" not in answer.text
    assert ">Contacts<" not in client_as(role).get("/").text


def test_contracts_stay_with_who_may_read_them(client_as: ClientAs, ada: int) -> None:
    client = client_as("contact_only:user")
    assert "<h2>Contracts" not in client.get("/contacts/1").text
    assert "contracts" not in client.get("/api/v1/contacts/DEMO/K1").json()


@pytest.mark.parametrize("key", ["K9", "%", "_", "nobody@example.com", "' OR 1=1 --"])
def test_nobody_is_found_where_nobody_is(client: TestClient, ada: int, key: str) -> None:
    page = client.get("/contacts", params={"domain": "DEMO", "key": key})
    assert page.status_code == 404
    assert "Nobody in domain DEMO has the external id or the email" in page.text
    assert client.get("/contacts/99").status_code == 404


def test_what_stands_in_a_file_is_never_markup(
    client: TestClient, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(
        submit(
            "Customer number,Email,Last name,City\nK2,b@example.com,<img src=x onerror=alert(1)>,<b>x</b>\n"
        )
    )
    page = client.get("/contacts/1").text
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img" not in page
    assert "<b>x" not in page


def test_an_empty_profile_says_what_is_not_known(
    client: TestClient, submit: Callable[..., int], work: Callable[[int], Batch]
) -> None:
    work(submit("Email,Last name\nc@example.com,Curie\n"))
    page = client.get("/contacts/1").text
    for sentence in (
        "None was made with this contact.",
        "No campaign is known",
        "This contact never opted in to a list",
    ):
        assert sentence in page
