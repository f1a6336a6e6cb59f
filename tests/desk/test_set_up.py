"""The set-up: who may change it, what is wrong told at its field, and what was changed shown with who did it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rowledger import reference
from rowledger.db import Connection
from rowledger.reference import Domain, Origin, Phase, Status, Subscription

ClientAs = Callable[..., TestClient]
API = "/api/v1/reference"
NEW: dict[str, tuple[str, dict[str, Any]]] = {
    "domain": ("", {"code": "EAST", "name": "East"}),
    "phase": ("DEMO", {"code": "MID", "description": "In between"}),
    "status": ("DEMO", {"code": "40", "phase": "NEW", "description": "Welcomed", "churn": False, "automatic_after_days": 30}),
    "origin": ("DEMO", {"code": "SHOP", "name": "Shop"}),
    "subscription": ("DEMO", {"list_id": "POST", "name": "Post", "type": "mail", "display_sequence": 9}),
}  # fmt: skip
SORTS = {"domain": Domain, "phase": Phase, "status": Status, "origin": Origin, "subscription": Subscription}


@pytest.fixture
def op(client_as: ClientAs) -> TestClient:
    return client_as("op")


def item(client: TestClient, sort: str, domain: str, code: str) -> Any:
    return client.get(f"{API}/{sort}/item", params={"domain": domain, "code": code})


@pytest.mark.parametrize("sort", NEW)
def test_every_sort_is_created_changed_retired_and_restored(
    op: TestClient, connection: Connection, sort: str
) -> None:
    domain, fields = NEW[sort]
    code = fields.get("code") or fields["list_id"]
    made = op.post(f"{API}/{sort}/item", params={"domain": domain}, json=fields)
    assert made.status_code == 201
    assert made.json()["message"].endswith("is created.")
    assert made.json()["fields"] | fields == made.json()["fields"]
    seen = item(op, sort, domain, code)
    assert seen.headers["ETag"] == made.headers["ETag"]
    text = "description" if "description" in fields else "name"
    here = {"domain": domain, "code": code}
    changed = op.patch(
        f"{API}/{sort}/item", params=here, json={text: "Another"}, headers={"If-Match": seen.headers["ETag"]}
    )
    assert changed.json()["fields"][text] == "Another"
    retired = op.post(f"{API}/{sort}/item/retire", params=here, headers={"If-Match": changed.headers["ETag"]})
    assert (retired.status_code, retired.json()["in_use"]) == (200, False)
    restored = op.post(f"{API}/{sort}/item/restore", params=here, headers={"If-Match": "*"})
    assert restored.json()["in_use"] is True
    assert reference.get(connection, SORTS[sort], code, domain or None).in_use
    assert code in [one["id"] for one in op.get(f"{API}/{sort}", params={"domain": domain}).json()["items"]]
    told = op.get(f"{API}/changes", params={"sort": sort, "code": code}).json()["changes"]
    assert [one["by"] for one in told] == ["op"] * 4
    page = op.get(f"/set-up/{sort}/item", params=here).text
    assert page.count('data-title="Who"><bdi>op</bdi>') == 4
    assert re.search(rf"{text}: <del><bdi>[^<]+</bdi></del> → <ins><bdi>Another</bdi></ins>", page)


@pytest.mark.parametrize("role", ["viewer", "clerk", "user"])
def test_only_who_may_change_the_set_up_changes_it(
    client_as: ClientAs, connection: Connection, role: str
) -> None:
    client = client_as(role)
    here, any_version = {"domain": "DEMO", "code": "20"}, {"If-Match": "*"}
    answers = [
        client.post(f"{API}/phase/item", params={"domain": "DEMO"}, json=NEW["phase"][1]),
        client.patch(f"{API}/status/item", params=here, json={"description": "x"}, headers=any_version),
        client.post(f"{API}/status/item/retire", params=here, headers=any_version),
        client.post(f"{API}/status/item/restore", params=here, headers=any_version),
        client.post(f"{API}/status/item/make-initial", params=here, headers=any_version),
        client.post(f"{API}/lists/add", params={"name": "countries"}, json={"values": ["XX"]}),
        client.post(f"{API}/lists/remove", params={"name": "countries"}, json={"values": ["DE"]}),
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert "may see domains, codes and lists but not change them" in answers[0].json()["detail"]
    for address in (
        "/set-up",
        "/set-up?domain=DEMO",
        "/set-up/status/item?domain=DEMO&code=20",
        "/set-up/list?name=countries",
    ):
        page = client.get(address)
        assert page.status_code == 200
        assert "data-api" not in page.text
        assert "+ New" not in page.text
    assert len(reference.changes(connection, "DEMO", sort="phase", limit=100)) == 2, (
        "those of the reference file"
    )


@pytest.mark.parametrize(
    ("sort", "fields", "field", "told"),
    [
        ("phase", {"code": "a b", "description": "x"}, "code", "must be 1 to 64 printable ASCII characters"),
        ("phase", {"code": "NEW", "description": "x"}, "code", "exists already in domain DEMO; change it instead"),
        ("phase", {"code": "X"}, "description", "description is missing"),
        ("status", {"code": "41", "phase": "NONE", "description": "x"}, "phase", "does not exist. Phases in use are: END, NEW"),
        ("status", {"code": "41", "phase": "NEW", "description": "x", "initial": True}, "initial", 'the initial status is "10"'),
        ("status", {"code": "41", "phase": "NEW", "description": "x", "automatic_after_days": 0}, "automatic_after_days", "greater than or equal to 1"),
        ("status", {"code": "41", "phase": "NEW", "description": "x", "initial": True, "definitive": True}, "definitive", "must be false"),
        ("subscription", {"list_id": "L", "name": "x", "type": "pigeon"}, "type", "must be one of"),
        ("subscription", {"list_id": "L", "name": "x", "type": "mail", "display_sequence": None}, "display_sequence", "must be a whole number"),
        ("origin", {"code": "Y", "name": "x", "colour": "red"}, "colour", "colour is not known here. Origins have: code, name, active."),
        ("domain", {"code": "Z", "name": "x", "phases": [{"code": "P", "description": "x"}]}, "phases", "phases is not known here. Domains have: code, name, retired."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_field(
    op: TestClient, sort: str, fields: dict[str, Any], field: str, told: str
) -> None:
    refused = op.post(f"{API}/{sort}/item", params={"domain": "DEMO"}, json=fields)
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["errors"]] == [field]
    assert told in refused.json()["errors"][0]["message"]


def test_a_code_never_changes(op: TestClient) -> None:
    refused = op.patch(
        f"{API}/status/item",
        params={"domain": "DEMO", "code": "20"},
        json={"code": "21"},
        headers={"If-Match": "*"},
    )
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "code")


def test_who_changes_what_was_changed_since_is_told_by_whom_and_what(
    op: TestClient, client_as: ClientAs
) -> None:
    here = {"domain": "DEMO", "code": "WEB"}
    seen = {"If-Match": item(op, "origin", "DEMO", "WEB").headers["ETag"]}
    client_as("admin").patch(f"{API}/origin/item", params=here, json={"name": "The web"}, headers=seen)
    for refused in (
        op.patch(f"{API}/origin/item", params=here, json={"name": "Net"}, headers=seen),
        op.post(f"{API}/origin/item/retire", params=here, headers=seen),
    ):
        assert refused.status_code == 412
        assert "was changed by admin at" in refused.json()["detail"]
        assert "(name: Web site → The web)" in refused.json()["detail"]
    assert item(op, "origin", "DEMO", "WEB").json()["fields"]["name"] == "The web"


def test_a_change_says_what_it_has_seen(op: TestClient) -> None:
    here = {"domain": "DEMO", "code": "20"}
    for refused in (
        op.patch(f"{API}/status/item", params=here, json={"description": "x"}),
        op.post(f"{API}/status/item/retire", params=here),
        op.post(f"{API}/status/item/make-initial", params=here),
    ):
        assert refused.status_code == 428


def test_another_status_becomes_the_initial_one_in_one_step(op: TestClient) -> None:
    here = {"domain": "DEMO", "code": "20"}
    old = item(op, "status", "DEMO", "20").headers["ETag"]
    assert (
        op.post(f"{API}/status/item/make-initial", params=here, headers={"If-Match": old}).json()["fields"][
            "initial"
        ]
        is True
    )
    assert item(op, "status", "DEMO", "10").json()["fields"]["initial"] is False
    assert (
        op.post(f"{API}/status/item/make-initial", params=here, headers={"If-Match": old}).status_code == 412
    )


def test_a_phase_in_use_is_not_retired_and_the_reason_is_told(op: TestClient) -> None:
    refused = op.post(
        f"{API}/phase/item/retire", params={"domain": "DEMO", "code": "NEW"}, headers={"If-Match": "*"}
    )
    assert refused.status_code == 422
    assert "Retire them, or move them to another phase, first: 10, 20, 30." in refused.json()["detail"]


@pytest.mark.parametrize("code", ["..", "a/b?c#d%41&e=f", "'\"<b>", "."])
def test_any_code_that_may_be_can_be_kept(op: TestClient, code: str) -> None:
    assert (
        op.post(f"{API}/origin/item", params={"domain": "DEMO"}, json={"code": code, "name": "x"}).status_code
        == 201
    )
    listed = op.get("/set-up?domain=DEMO").text
    (address,) = [
        a
        for a in re.findall(r'href="(/set-up/origin/item\?[^"]+)"', listed)
        if "WEB" not in a and "FAIR" not in a and "OLD" not in a
    ]
    page = op.get(address.replace("&amp;", "&"))
    assert page.status_code == 200
    (api,) = set(re.findall(r'data-api="PATCH ([^"]+)"', page.text))
    etag = re.search(r'data-if-match="([^"]+)"', page.text)
    assert etag
    changed = op.patch(
        api.replace("&amp;", "&"), json={"name": "y"}, headers={"If-Match": etag[1].replace("&#34;", '"')}
    )
    assert changed.json()["fields"] == {"code": code, "name": "y", "active": True}
    assert "<b>" not in page.text


def test_values_are_added_and_taken_off_with_who_did_it(op: TestClient) -> None:
    added = op.post(f"{API}/lists/add", params={"name": "countries"}, json={"values": ["PL", "DE", "PL"]})
    assert added.json() == {"message": 'Added 1 to the list "countries", 1 there already.', "changed": 1}
    removed = op.post(f"{API}/lists/remove", params={"name": "countries"}, json={"values": ["DE"]})
    assert removed.json()["changed"] == 1
    assert op.get(f"{API}/lists/values", params={"name": "countries"}).json()["values"] == [
        "AT",
        "BE",
        "CH",
        "FR",
        "NL",
        "PL",
    ]
    page = op.get("/set-up/list?name=countries").text
    assert re.findall(r"(added|removed) <bdi>(\w+)</bdi>", page)[:2] == [("removed", "DE"), ("added", "PL")]
    assert (
        op.post(
            f"{API}/lists/remove", params={"name": "countries"}, json={"values": ["ZZ", "AT"]}
        ).status_code
        == 422
    )
    assert op.post(f"{API}/lists/add", params={"name": "@origins"}, json={"values": ["x"]}).status_code == 422
    nothing = op.post(f"{API}/lists/add", params={"name": "countries"}, json={})
    assert (nothing.status_code, nothing.json()["detail"]) == (422, "Name one value or more.")


def test_a_long_list_is_read_in_pages(op: TestClient) -> None:
    op.post(f"{API}/lists/add", params={"name": "many"}, json={"values": [f"v{n:03}" for n in range(450)]})
    first = op.get("/set-up/list?name=many").text
    assert (first.count('name="values" value="'), "Next values" in first) == (200, True)
    following = op.get(f"{API}/lists/values", params={"name": "many", "after": "v399", "limit": 50}).json()
    assert (following["values"][0], len(following["values"]), following["next"]) == ("v400", 50, None)
    assert op.get("/set-up/list?name=many&begins=V44").text.count('name="values" value="') == 10


def test_the_changes_are_read_in_pages_and_filtered(op: TestClient) -> None:
    op.post(f"{API}/lists/add", params={"name": "many"}, json={"values": [f"v{n:03}" for n in range(60)]})
    page = op.get("/set-up/changes?sort=value&code=many").text
    assert page.count('<td data-title="When">') == 50
    older = re.search(r'href="([^"]+before=\d+)">Older', page)
    assert older
    assert op.get(older[1].replace("&amp;", "&")).text.count('<td data-title="When">') == 10
    told = op.get(f"{API}/changes", params={"code": "many", "limit": 7}).json()
    assert (len(told["changes"]), told["next"]) == (7, told["changes"][-1]["change_id"])
    assert op.get("/set-up/changes?domain=NONE").status_code == 404


def test_what_is_not_there_is_told(op: TestClient) -> None:
    assert item(op, "status", "DEMO", "99").status_code == 404
    assert item(op, "status", "NONE", "10").status_code == 404
    assert item(op, "status", "", "10").status_code == 422
    assert op.get("/set-up?domain=NONE").status_code == 404
    assert op.get("/set-up/status/item?domain=DEMO&code=99").status_code == 404
    assert (
        op.post(
            f"{API}/status/item/retire", params={"domain": "DEMO", "code": "99"}, headers={"If-Match": "*"}
        ).status_code
        == 404
    )
    assert op.get(f"{API}/nonsense?domain=DEMO").status_code == 422


def test_a_domain_without_anything_says_what_comes_first(op: TestClient) -> None:
    page = op.get("/set-up?domain=OTHER").text
    assert "create a phase first, every status belongs to one" in page
    assert "this domain has none" in op.get("/set-up/status/new?domain=OTHER").text


def test_the_document_has_an_example_for_every_answer(op: TestClient) -> None:
    paths = op.get("/api/v1/openapi.json").json()["paths"]
    ours = {
        p: m for p, m in paths.items() if re.match(r"/api/v1/(reference|contracts|contacts|templates)", p)
    }
    assert len(ours) >= 15
    lacking = [
        f"{method} {path} {status}"
        for path, methods in ours.items()
        for method, told in methods.items()
        for status, answer in told["responses"].items()
        if status.startswith("2") and not all("example" in one for one in answer["content"].values())
    ]
    assert lacking == []
