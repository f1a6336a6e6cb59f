"""Who may do what. The gate stands before the whole app: documents, static files and what does not exist included.

In: a request. Out: the same request with its user, or a refusal; no byte of a body is read before that. Every route
then names the right it needs (``Needs``, ``NeedsKind``, ``BatchWith``); rights are given per import kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from fastapi import Path, Query, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rowledger import batches
from rowledger.desk.context import ConnectionDep, DeskDep, desk_of
from rowledger.desk.inline_style import style_source
from rowledger.desk.problems import Refused, refusal
from rowledger.errors import UnknownCode
from rowledger.model import Batch

USER = "rowledger.user"
OWN_HEADER = "X-Rowledger"  # a page of another site cannot send it without being asked first
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
MAX_SEQNO = 2**63 - 1
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' {style}; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Right(StrEnum):
    """What a user may be allowed to do with the batches of a kind; personal data is what stands in the cells.

    Whoever may change the set-up may change what all kinds refer to: that right is one for all of them.
    """

    READ = "read"
    WRITE = "write"
    PERSONAL = "personal data"
    SET_UP = "set up"


@dataclass(frozen=True)
class User:
    """Who asks. ``by_cookie``: the browser has said it, not the caller. ``given`` is whatever the guard needs later."""

    name: str
    by_cookie: bool
    given: Any = None


class Guard(Protocol):
    """Knows users and their rights; handed to ``create_app``."""

    async def who(self, request: Request) -> User:
        """The user of a request. Raises Refused: 401 for nobody, 403 for somebody who is not to be trusted."""
        ...

    def may(self, user: User, right: Right, kind: str) -> bool:
        """Whether a user has a right on the batches of a kind."""
        ...


class Gate:
    """The outermost layer of the app: nothing goes in without a user, nothing goes out without the headers."""

    def __init__(self, app: ASGIApp, guard: Guard, kinds: tuple[str, ...]) -> None:
        self._app, self._guard, self._kinds = app, guard, kinds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope[USER] = await self._let_in(Request(scope))
        except Refused as refused:
            await refusal(Request(scope), refused)(scope, receive, _with_headers(send))
        else:
            await self._app(scope, receive, _with_headers(send))

    async def _let_in(self, request: Request) -> User:
        user = await self._guard.who(request)
        if not await run_sync(self._may_see_anything, user):
            raise Refused(403, "Your role may not see imports; ask an administrator for it.")
        if request.method not in SAFE_METHODS:
            _refuse_foreign(request, user)
        return user

    def _may_see_anything(self, user: User) -> bool:
        return any(self._guard.may(user, Right.READ, kind) for kind in self._kinds)


def _refuse_foreign(request: Request, user: User) -> None:
    """Refuse what another site has made a browser send."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        foreign = site != "same-origin"
    else:
        foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("Host")
    if foreign:
        raise Refused(403, "This request comes from another site and was not carried out.")
    if user.by_cookie and site is None and origin is None:
        raise Refused(
            403, "The browser does not say which site this request comes from; it was not carried out."
        )
    if user.by_cookie and OWN_HEADER not in request.headers:
        raise Refused(
            403, f"A request with a session cookie needs the header {OWN_HEADER}; send it, or a token."
        )


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = POLICY.format(style=style_source())
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return with_headers


def user_of(request: Request) -> User:
    """The user that the gate has let in."""
    user = request.scope[USER]
    assert isinstance(user, User)
    return user


def kinds_with(request: Request, right: Right) -> list[str]:
    """The import kinds on whose batches the user has a right."""
    desk = desk_of(request)
    return [kind for kind in desk.kinds if desk.guard.may(user_of(request), right, kind)]


def has(request: Request, right: Right, kind: str) -> bool:
    """Whether the user of a request has a right on the batches of a kind."""
    return desk_of(request).guard.may(user_of(request), right, kind)


@dataclass(frozen=True)
class Needs:
    """A dependency of a route: the user needs a right on some kind, or on one ``of`` certain kinds.

    Gives the kinds on which they have it.
    """

    right: Right
    of: tuple[str, ...] = ()

    def __call__(self, request: Request) -> list[str]:
        kinds = self.kinds(request)
        if not kinds:
            raise lacking(self.right)
        return kinds

    def kinds(self, request: Request) -> list[str]:
        """The kinds on which the user has the right; none if they have it on none."""
        return [kind for kind in kinds_with(request, self.right) if not self.of or kind in self.of]


@dataclass(frozen=True)
class NeedsKind:
    """A dependency of a route that names a kind in its query: the user needs a right on that kind. Gives the kind."""

    right: Right

    def __call__(self, request: Request, kind: Annotated[str, Query(description="the import kind")]) -> str:
        Needs(self.right)(request)
        desk = desk_of(request)
        if kind not in desk.kinds:
            raise UnknownCode(f'There is no import kind "{kind}". Kinds are: {", ".join(desk.kinds)}.')
        if not has(request, self.right, kind):
            raise lacking(self.right)
        return kind


@dataclass(frozen=True)
class BatchWith:
    """A dependency of a route about one batch: the user needs a right on its kind, or two. Gives the batch."""

    right: Right
    also: Right | None = None

    @property
    def rights(self) -> tuple[Right, ...]:
        """All the rights that are needed."""
        return (self.right, self.also) if self.also else (self.right,)

    def __call__(
        self,
        request: Request,
        desk: DeskDep,
        connection: ConnectionDep,
        seqno: Annotated[int, Path(ge=1, le=MAX_SEQNO, description="the import batch seqno")],
    ) -> Batch:
        for right in self.rights:
            Needs(right)(request)
        try:
            batch = batches.get(connection, seqno)
        except UnknownCode as unknown:
            raise Refused(404, str(unknown)) from None
        for right in self.rights:
            if not has(request, right, batch.kind):
                raise lacking(right)
        return batch


def lacking(right: Right) -> Refused:
    """What somebody is told who has not got a right."""
    needed = {
        Right.READ: "may not see these imports",
        Right.WRITE: "may see imports but not upload or change them",
        Right.PERSONAL: "may not see personal data: the cells of files and what stands in them",
        Right.SET_UP: "may see domains, codes and lists but not change them",
    }
    return Refused(403, f"Your role {needed[right]}; ask an administrator for it.")
