"""Whatever goes wrong, as an answer: a problem document (RFC 9457) for programs, a page for people."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from rowledger.errors import (
    ChangedMeanwhile,
    DiskFull,
    DuplicateUpload,
    FileError,
    JudgedTooLong,
    KeyReused,
    NotJudged,
    NotKept,
    NotPossible,
    RecordRefused,
    RowledgerError,
    TryAgain,
    UnknownCode,
    WrongValue,
    where,
)

log = logging.getLogger("rowledger.desk")
RETRY_SECONDS = 5
API = "/api/"
TAB = "/of-run"  # the page in Airflow's tabs, in which no link leads anywhere

# The first that fits: a subclass stands before its class.
_STATUS: tuple[tuple[type[RowledgerError], int], ...] = (
    (TryAgain, 503),
    (DiskFull, 507),
    (NotKept, 503),
    (JudgedTooLong, 422),
    (NotJudged, 503),
    (DuplicateUpload, 409),
    (NotPossible, 409),
    (ChangedMeanwhile, 412),
    (RecordRefused, 409),
    (KeyReused, 422),
    (UnknownCode, 422),
    (WrongValue, 422),
    (FileError, 422),
)


class Refused(Exception):
    """A request that is not carried out: the HTTP status, a sentence, and headers and members of the answer if any."""

    def __init__(
        self, status: int, sentence: str, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers, self.members = status, sentence, headers or {}, members


def refusal(request: Request, refused: Refused) -> Response:
    """The answer to a request that is refused."""
    headers = dict(refused.headers)
    if refused.status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    if refused.status in (401, 403, 408, 411, 413, 415) and request.method not in ("GET", "HEAD"):
        headers["Connection"] = "close"  # a body that may be on its way is not read
    title = HTTPStatus(refused.status).phrase
    if _for_people(request):
        return HTMLResponse(_page(request, refused, title), refused.status, headers)
    body = {"type": "about:blank", "title": title, "status": refused.status, "detail": refused.sentence}
    return JSONResponse(body | refused.members, refused.status, headers, "application/problem+json")


def _for_people(request: Request) -> bool:
    """Pages are for people; what a script of a page asks for is read by the script."""
    inside = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return not inside.startswith(API) and "HX-Request" not in request.headers


def _page(request: Request, refused: Refused, title: str) -> str:
    """A page that loads nothing: whoever is refused may not have style and script either."""
    from rowledger.desk.pages import environment, root

    template = environment().get_template("problem.html")
    return template.render(title=title, sentence=refused.sentence, status=refused.status,
                           root=root(request), in_tab=request.url.path == f"{root(request)}{TAB}")  # fmt: skip


def add_handlers(app: FastAPI) -> None:
    """Answer every exception in these words."""

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        return refusal(request, error)

    @app.exception_handler(RowledgerError)
    def ours(request: Request, error: RowledgerError) -> Response:
        if in_http(error).status == 500:
            log.error("%s %s\n%s", request.method, request.url.path, where(error))
        return refusal(request, in_http(error))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        return refusal(request, _invalid(error))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        sentence = _SENTENCES.get(error.status_code, str(error.detail))
        return refusal(request, Refused(error.status_code, sentence, dict(error.headers or {})))

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        log.error("%s %s\n%s", request.method, request.url.path, where(error))
        return refusal(
            request, Refused(500, "Rowledger itself failed; the log of the API server has the details.")
        )


_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not know that method.",
}


def in_http(error: RowledgerError) -> Refused:
    """What Rowledger raises, as an HTTP status and members of a problem document."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    members: dict[str, Any] = {}
    sentence = str(error)
    if isinstance(error, DuplicateUpload):
        members |= {"seqno": error.seqno, "file_name": error.file_name}
        sentence = f"The same file was uploaded before with the same template and domain, as import batch {error.seqno}."
    if isinstance(error, WrongValue):
        members["errors"] = [{"field": error.field, "message": sentence}]
    if isinstance(error, FileError):
        members["rule"] = error.rule
    if status == 503:
        sentence += " Try again in a moment."
    return Refused(status or 500, sentence, headers, **members)


def _invalid(error: RequestValidationError) -> Refused:
    """Every wrong parameter with a sentence; the value itself is not repeated."""
    wrong = [{"field": str(one["loc"][-1]), "message": str(one["msg"])} for one in error.errors()]
    told = "; ".join(f"{one['field']}: {one['message']}" for one in wrong)
    return Refused(422, f"The request is wrong. {told}.", errors=wrong)
