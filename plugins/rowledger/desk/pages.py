"""How pages are made: Jinja2 with autoescape, words for numbers and dates, the address of the app."""

from __future__ import annotations

import functools
import hashlib
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from rowledger.desk.access import Needs, Right, has, user_of
from rowledger.desk.batch_view import error_message, etag, state, version
from rowledger.desk.context import desk_of
from rowledger.desk.inline_style import style
from rowledger.model import Outcome

# The pages of the app: the last part of the address, what people call it, what it needs.
NAV = (
    ("", "Imports", Needs(Right.READ)),
    ("new", "New import", Needs(Right.WRITE)),
    ("contracts", "Contracts", Needs(Right.READ, ("contract", "contract_status"))),
    ("contacts", "Contacts", Needs(Right.PERSONAL, ("contact",))),
    ("templates", "Templates", Needs(Right.READ)),
    ("operations", "Operations", Needs(Right.READ)),
    ("set-up", "Set-up", Needs(Right.READ)),
)


@functools.cache
def environment() -> Environment:
    """The templates of all pages."""
    html = Environment(
        loader=PackageLoader("rowledger.desk", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html.filters |= {
        "number": number,
        "moment": moment,
        "bytes": in_bytes,
        "duration": duration,
        "words": words,
    }
    html.globals |= {"state": state, "version": version, "etag": etag, "error_message": error_message,
                     "outcomes": [str(o) for o in Outcome], "stamp": _stamp(), "style": style()}  # fmt: skip
    return html


def page(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a part of one, of the app's user."""
    nav = [(path, title) for path, title, needs in NAV if needs.kinds(request)]
    html = desk_of(request).html.get_template(name)
    text = html.render(
        request=request,
        root=root(request),
        nav=nav,
        user=user_of(request),
        kinds=desk_of(request).kinds,
        **values,
    )
    return HTMLResponse(text, status)


def is_part(request: Request) -> bool:
    """Whether a script of a page asks for a part of it; for a page of the browser's history it asks for all."""
    return "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers


def unchanged() -> Response:
    """What a page that asks for changes gets when there are none."""
    return Response(status_code=204)


def root(request: Request) -> str:
    """The address of the app on this server; links begin with it, and never with what a caller says its host is."""
    return str(request.scope.get("root_path", ""))


def may(request: Request, right: Right, kind: str) -> bool:
    """Whether a page shows something to its user."""
    return has(request, right, kind)


def number(value: float | None) -> str:
    """1234567 as people read it."""
    return "" if value is None else f"{value:,.0f}"


def moment(value: datetime | None) -> str:
    """A moment in UTC; the page's script shows it in the time of its reader."""
    return "" if value is None else f"{value:%Y-%m-%d %H:%M}"


def duration(value: timedelta | float | None) -> str:
    """A length of time in the two greatest units."""
    if value is None:
        return ""
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    ]
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2] if n or first == 3)


def in_bytes(value: int) -> str:
    """A size in bytes as people read it."""
    size, unit = float(value), "bytes"
    for greater in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, greater
    return f"{size:,.0f}\u00a0{unit}" if unit == "bytes" else f"{size:,.1f}\u00a0{unit}"


def words(value: str) -> str:
    """in_progress as people write it."""
    return value.replace("_", " ")


def _stamp() -> str:
    """Changes with the style and the scripts, so that a browser may keep them."""
    digest = hashlib.sha256()
    for entry in sorted(resources.files("rowledger.desk").joinpath("static").iterdir(), key=lambda e: e.name):
        digest.update(entry.read_bytes())
    return digest.hexdigest()[:10]
