"""The desk on a bare app, before a guard that takes a role for a name, on a database of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from rowledger import db, suites
from rowledger.desk import create_app
from rowledger.desk.access import Right, User
from rowledger.desk.context import Schedule
from rowledger.desk.problems import Refused
from rowledger.judges import Judges
from rowledger.settings import Settings

# What each role may do; "" is a user to whom nobody has given one.
RIGHTS = {
    "": set(),
    "viewer": {Right.READ},
    "user": {Right.READ, Right.WRITE, Right.PERSONAL},
    "op": {Right.READ, Right.WRITE, Right.PERSONAL, Right.SET_UP},
    "admin": {Right.READ, Right.WRITE, Right.PERSONAL, Right.SET_UP},
    "clerk": {Right.READ, Right.WRITE},
    "auditor": {Right.READ, Right.PERSONAL},
}


class RoleGuard:
    """Takes the token for the role; ``contact_only:ROLE`` has it for contacts alone."""

    async def who(self, request: Request) -> User:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        by_cookie = kind.lower() != "bearer"
        token = request.cookies.get("_token", "nobody") if by_cookie else token
        if token in ("nobody", "expired"):
            raise Refused(401, "Not signed in.")
        if token.removeprefix("contact_only:") not in RIGHTS:
            raise Refused(403, "That is no token.")
        return User(token or "roleless", by_cookie, token)

    def may(self, user: User, right: Right, kind: str) -> bool:
        if user.given.startswith("contact_only:") and kind != "contact":
            return False
        return right in RIGHTS[user.given.removeprefix("contact_only:")]


class Runs:
    """An engine that notes what it is asked."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.plan: Schedule | None = None
        self.taken: dict[str, list[int]] = {}

    def schedule(self, kind: str) -> Schedule | None:
        return self.plan

    def run_now(self, kind: str, by: str) -> str:
        self.started.append((kind, by))
        return f"manual__{len(self.started)}"

    def kind_of(self, dag: str) -> str | None:
        return dag.removesuffix("_import") if dag.endswith("_import") else None

    def taken_on(self, kind: str, run_id: str) -> list[int] | None:
        return self.taken.get(run_id)

    def run_path(self, kind: str, run_id: str) -> str:
        return f"/dags/{kind}_import/runs/{run_id}"

    def task_path(self, kind: str, run_id: str, task: str, index: int) -> str:
        return f"/dags/{kind}_import/runs/{run_id}/tasks/import_batch.{task}/mapped/{index}"


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture(scope="session")
def judge() -> Iterator[Judges]:
    """The real one, warm for the whole run."""
    made = Judges()
    yield made
    made.close()


@pytest.fixture
def app(settings: Settings, database_url: str, runs: Runs, judge: Judges) -> Iterator[FastAPI]:
    made = create_app(
        lambda: db.connect(database_url),
        RoleGuard(),
        settings=settings,
        suites=suites,
        engine=runs,
        judge=judge,
    )
    yield made
    made.state.desk.connections.close()


@pytest.fixture
def client_as(app: FastAPI) -> Callable[..., TestClient]:
    """A client with the token of a role; ``cookie=True`` for one with a session, as a browser has it."""

    def client_as(role: str | None, *, cookie: bool = False) -> TestClient:
        client = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
        if role is not None and cookie:
            client.cookies.set("_token", role)
        elif role is not None:
            client.headers["Authorization"] = f"Bearer {role}"
        return client

    return client_as


@pytest.fixture
def client(client_as: Callable[..., TestClient]) -> TestClient:
    return client_as("user")


CONTACTS = "Customer number,Email,Last name,Country\nK1,a@example.com,Ann,DE\nK2,b@example.com,Ben,XX\nK3,c@example.com,,DE\n"
QUERY = {"kind": "contact", "domain": "DEMO", "template": "contacts", "file_name": "contacts.csv"}


@pytest.fixture
def post(client: TestClient) -> Callable[..., Any]:
    """Upload something right, changed as the test wants it."""

    def post(
        content: Any = CONTACTS, query: dict[str, Any] | None = None, as_: Any = None, **headers: str | None
    ) -> Any:
        told = {"Content-Type": "text/csv", "Idempotency-Key": "key-1"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        given = {name: value for name, value in told.items() if value is not None}
        return (as_ or client).post(
            "/api/v1/batches", params=QUERY | (query or {}), content=content, headers=given
        )

    return post
