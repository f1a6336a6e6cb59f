"""The rows of the access matrix, made from the routes of the app, and what each role is to get there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from rowledger import suites
from rowledger.desk import create_app
from rowledger.desk.access import BatchWith, Needs, NeedsKind, Right
from rowledger.settings import Settings

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE")
ROLES = (None, "expired", "garbage", "", "viewer", "clerk", "auditor", "user", "op", "admin")
RIGHTS = {"viewer": "r", "clerk": "rw", "auditor": "rp", "user": "rwp", "op": "rwps", "admin": "rwps"}


def rights_of(dependant: Dependant) -> Iterator[Right]:
    """The rights that a route names, however deep."""
    if isinstance(dependant.call, BatchWith):
        yield from dependant.call.rights
    if isinstance(dependant.call, Needs | NeedsKind):
        yield dependant.call.right
    for inner in dependant.dependencies:
        yield from rights_of(inner)


def routes(app: FastAPI | None = None) -> dict[tuple[str, str], frozenset[Right]]:
    """Every (method, path) that answers, and the rights it needs; the OpenAPI document is everybody's who is let in."""
    found: dict[tuple[str, str], frozenset[Right]] = {}
    for route in (app or bare()).routes:
        for method in route.methods:  # type: ignore[attr-defined]
            rights = set(rights_of(route.dependant)) if isinstance(route, APIRoute) else {Right.READ}
            assert rights, f"{route.path} names no right"  # type: ignore[attr-defined]
            found[method, route.path] = frozenset(rights)  # type: ignore[attr-defined]
    return found


def address(path: str) -> str:
    filled = {"{seqno}": "1", "{name}": "desk.css", "{contract_id}": "1", "{contact_id}": "1", "{sort}": "phase",
              "{domain}": "DEMO", "{form_id:path}": "F1", "{key:path}": "K1"}  # fmt: skip
    for part, value in filled.items():
        path = path.replace(part, value)
    return path


def expected(role: str | None, rights: frozenset[Right] | None, *, known: bool) -> set[int] | str:
    if role in (None, "expired"):
        return {401}
    if role not in RIGHTS:
        return {403}
    if not known:
        return {404, 405}
    if any(right.value[0] not in RIGHTS[role] for right in rights or ()):
        return {403}
    return "in"


def bare() -> FastAPI:
    """The app, to be looked at and not to be used."""
    nothing: Any = None
    return create_app(nothing, nothing, settings=Settings(Path(), Path()), suites=suites)
