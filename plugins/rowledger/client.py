"""The import desk for programs: its REST API, with the standard library alone.

In: the address of an Airflow, and a token or a user and a password for its login. Out: batches, records, files. What the
desk refuses is raised as one of ``errors``, with its sentence. What makes a batch has a key, which makes one of it
however often it is sent: that and reads are repeated while the desk is away or busy. Other requests are sent once; they
name the state of the batch that was seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlencode, urlsplit

from rowledger import errors, uploads
from rowledger.model import Batch, BatchStatus, Outcome

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each repetition
BLOCK_BYTES = 1 << 20
PAGE = 200  # batches in one answer
T = TypeVar("T")
_INTERNALS = {"domain_id": 0, "file_path": "", "epoch": 0, "attempts": 0}  # nobody outside is told


@dataclass(frozen=True)
class RemoteBatch(Batch):
    """A batch as the desk tells it: without internals, with what stands beside it; ``message`` says what was done."""

    etag: str = "*"
    origins: list[str] = field(default_factory=list)
    subscriptions: list[str] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    replayed: dict[str, int] = field(default_factory=dict)
    roll_back: dict[str, Any] | None = None
    given_up: int = 0
    message: str = ""

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> RemoteBatch:
        """From the JSON of an answer."""
        known = {
            n: f for n, f in cls.__dataclass_fields__.items() if n in Batch.__dataclass_fields__ or n in told
        }
        values = {n: _value(str(f.type), told.get(n)) for n, f in known.items()}
        counts = {str(outcome): told["counts"].get(outcome, 0) for outcome in Outcome}
        return cls(**values | _INTERNALS | {"counts": counts, "status": BatchStatus(told["status"])})

    def as_dict(self) -> dict[str, Any]:
        """The same as of a batch at hand."""
        return {
            name: value for name, value in super().as_dict().items() if name in Batch.__dataclass_fields__
        }


def _value(of_type: str, told: Any) -> Any:
    return datetime.fromisoformat(told) if told and "datetime" in of_type else told


class Client:
    """One desk, and who speaks to it. ``timeout`` is how many seconds it may say nothing."""

    def __init__(
        self, url: str, token: str | None = None, *, user: str = "", password: str = "", timeout: float = 60.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise errors.SetupError(
                f"{url!r} is not the address of an Airflow, such as https://airflow.example.com"
            )
        self._parts, self._base = parts, parts.path.rstrip("/").removesuffix("/imports")
        self._token, self._login, self._timeout = token, {"username": user, "password": password}, timeout

    # Batches

    def upload(
        self, file: Path, kind: str, domain: str, template: str, *, origins: Iterable[str] = (),
        subscriptions: Iterable[str] = (), again: bool = False, key: str | None = None,
    ) -> RemoteBatch:  # fmt: skip
        """Upload a file as a stream; it becomes a waiting batch. The same ``key`` again gives the same batch again."""
        query = {"kind": kind, "domain": domain, "template": template, "file_name": file.name, "again": again,
                 "origin": list(origins), "subscription": list(subscriptions)}  # fmt: skip
        return self._send_file("/batches", file, query, {"Idempotency-Key": key or uuid.uuid4().hex})

    def send_statuses(
        self, records: Sequence[Mapping[str, str | None]], domain: str, *, template: str | None = None,
        again: bool = False, key: str | None = None,
    ) -> RemoteBatch:  # fmt: skip
        """Send contract statuses without a file: form_id, date_result, result_code, each a text."""
        query = _query({"domain": domain, "template": template, "again": again})
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._batch(
            "POST", f"/contract-statuses{query}", {"records": list(records)}, headers, repeat=True
        )

    def batches(self, limit: int | None = None, **filters: Any) -> Iterator[RemoteBatch]:
        """Batches, the newest first, page by page; filters are those of ``GET /batches``, such as kind and status."""
        cursor = None
        while limit is None or limit > 0:
            size = min(limit or PAGE, PAGE)
            told = self._json("GET", f"/batches{_query(filters | {'limit': size, 'cursor': cursor})}")
            with _understood(self._parts.netloc):
                page, cursor = [RemoteBatch.from_told(one) for one in told["batches"]], told["next_cursor"]
            yield from page
            limit = limit and limit - size
            if cursor is None:
                return
            filters.pop("before", None)

    def batch(self, seqno: int) -> RemoteBatch:
        """One batch as it is now."""
        return self._batch("GET", f"/batches/{seqno}")

    def wait(self, seqno: int, seconds: float = 3600.0) -> RemoteBatch:
        """The batch once it has ended, or somebody has paused it. Raises TryAgain if that takes too long."""
        deadline, pause = time.monotonic() + seconds, 0.25
        while not ((batch := self.batch(seqno)).status.terminal or batch.status is BatchStatus.PAUSED):
            if time.monotonic() > deadline:
                raise errors.TryAgain(f"Import batch {seqno} has not ended within {seconds:.0f} seconds.")
            time.sleep(pause := min(pause * 1.5, 5.0))
        return batch

    def events(self, seqno: int) -> list[dict[str, Any]]:
        """Who did what to a batch and when, the oldest first."""
        found = self._json("GET", f"/batches/{seqno}/events")["events"]
        return [event | {"occurred_at": datetime.fromisoformat(event["occurred_at"])} for event in found]

    # What became of records

    def records(self, seqno: int, **filters: Any) -> Generator[dict[str, Any]]:
        """What became of every record, in flat memory; filters are those of ``GET /batches/{seqno}/records``."""
        with self._stream(f"/batches/{seqno}/records{_query(filters)}") as answer:
            rest = b""
            while block := self._block(answer):
                *lines, rest = (rest + block).split(b"\n")
                yield from map(json.loads, lines)
            if rest:
                raise errors.TryAgain(f"The answer of {self._parts.netloc} broke off.")

    def reasons(self, seqno: int) -> list[dict[str, Any]]:
        """Why records were not loaded: outcome, rule, column, records, share, up to three examples."""
        found: list[dict[str, Any]] = self._json("GET", f"/batches/{seqno}/errors")["reasons"]
        return found

    def download(self, seqno: int, what: str, target: BinaryIO) -> None:
        """Write ``rejects.csv``, ``outcomes.csv`` or the original ``file`` of a batch to a file, in flat memory."""
        with self._stream(f"/batches/{seqno}/{what}") as answer:
            while block := self._block(answer):
                target.write(block)

    def _block(self, answer: http.client.HTTPResponse) -> bytes:
        with _in_words(self._parts.netloc):
            block = answer.read(BLOCK_BYTES)
            if not block and answer.length:  # http.client keeps quiet about an end that comes too early
                raise http.client.IncompleteRead(b"", answer.length)
            return block

    # What people ask of a batch: one that was seen, in whose state it must still be, or a seqno, in whatever state

    def pause(self, batch: int | RemoteBatch, why: str = "") -> RemoteBatch:
        """Stop work at the next chunk; what is written stays."""
        return self._ask(batch, "pause", {"why": why})

    def resume(self, batch: int | RemoteBatch, why: str = "") -> RemoteBatch:
        """Let a paused batch wait for the next run."""
        return self._ask(batch, "resume", {"why": why})

    def cancel(self, batch: int | RemoteBatch, why: str = "", *, roll_back: bool = False) -> RemoteBatch:
        """End a batch where it is; with ``roll_back`` the next run takes back what is written."""
        return self._ask(batch, "cancel", {"why": why, "roll_back": roll_back})

    def roll_back(self, batch: int | RemoteBatch, why: str) -> RemoteBatch:
        """Ask for the roll back of a batch that has ended; the next run does it."""
        return self._ask(batch, "roll-back", {"why": why})

    def give_up(
        self, batch: int | RemoteBatch, why: str, waits_for: str | None = None, key: str | None = None
    ) -> RemoteBatch:
        """Wait no longer for what its parked records wait for, all or one thing: a contract or status by its key."""
        thing = {"waits_for": waits_for, "key": key} if waits_for else {}
        return self._ask(batch, "give-up", {"why": why} | thing)

    def parked(
        self, kind: str | None = None, domain: str | None = None, seqno: int | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """What records wait for, most records first; each says how many there are in all, of things and of records."""
        told = self._json(
            "GET", f"/parked{_query({'kind': kind, 'domain': domain, 'seqno': seqno, 'limit': limit})}"
        )
        with _understood(self._parts.netloc):
            in_all = {"all_groups": told["groups_in_all"], "all_records": told["records_in_all"]}
            return [one | {"since": datetime.fromisoformat(one["since"])} | in_all for one in told["groups"]]

    def give_up_thing(self, kind: str, domain: str, waits_for: str, key: str, why: str) -> dict[int, int]:
        """Wait no longer for a contract or status, in all batches that have ended; for each, how many records that were."""
        body = {"domain": domain, "waits_for": waits_for, "key": key, "why": why}
        told = self._json("POST", f"/parked/give-up{_query({'kind': kind})}", body)
        with _understood(self._parts.netloc):
            return {one["seqno"]: one["given_up"] for one in told["batches"]}

    def reprocess(self, batch: int | RemoteBatch, template: str, *, key: str | None = None) -> RemoteBatch:
        """Take the file of a batch once more, with its template as it was (old) or is (current); gives the new batch.

        The same ``key`` again gives the same batch again.
        """
        return self._ask(batch, "reprocess", {"template": template}, key or uuid.uuid4().hex)

    def rerun(
        self, batch: int | RemoteBatch, mended: Path | None = None, template: str = "old", *, key: str | None = None
    ) -> RemoteBatch:  # fmt: skip
        """Take the rejected records once more, as they were or from a mended file; gives the new batch.

        The same ``key`` again gives the same batch again.
        """
        seqno, seen = (batch.seqno, batch.etag) if isinstance(batch, RemoteBatch) else (batch, "*")
        path, query = f"/batches/{seqno}/rerun", {"template": template}
        headers = {"If-Match": seen, "Idempotency-Key": key or uuid.uuid4().hex}
        if mended is None:
            return self._batch("POST", path + _query(query), None, headers, repeat=True)
        return self._send_file(path, mended, query | {"file_name": mended.name}, headers)

    def run_now(self, batch: int | RemoteBatch) -> RemoteBatch:
        """Start a run for what waits of the batch's kind; the batch as it is, if another run has just taken it."""
        try:
            return self._ask(batch, "run-now", None)
        except (errors.NotPossible, errors.ChangedMeanwhile):
            now = self.batch(batch if isinstance(batch, int) else batch.seqno)
            if now.status not in (BatchStatus.IN_PROGRESS, BatchStatus.EXECUTED):
                raise
            return now

    def _ask(self, batch: int | RemoteBatch, what: str, told: Any, key: str | None = None) -> RemoteBatch:
        seqno, seen = (batch.seqno, batch.etag) if isinstance(batch, RemoteBatch) else (batch, "*")
        headers = {"If-Match": seen} | ({"Idempotency-Key": key} if key else {})
        return self._batch("POST", f"/batches/{seqno}/{what}", told, headers, repeat=key is not None)

    # Requests

    def _send_file(
        self, path: str, file: Path, query: Mapping[str, Any], headers: Mapping[str, str]
    ) -> RemoteBatch:
        with uploads.opened(file) as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            told = {
                "Content-Type": "text/csv",
                "Content-Length": str(source.tell()),
                "X-Content-SHA256": digest,
            }
            keyed = "Idempotency-Key" in headers
            return self._batch("POST", path + _query(query), source, {**headers, **told}, repeat=keyed)

    def _batch(self, *request: Any, repeat: bool = False) -> RemoteBatch:
        told = self._json(*request, repeat=repeat)
        with _understood(self._parts.netloc):
            return RemoteBatch.from_told(told)

    def _json(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, repeat: bool = False
    ) -> Any:  # fmt: skip
        headers = dict(headers or {})
        if body is not None and not hasattr(body, "read"):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"

        def whole() -> bytes:
            connection, answer = self._let_in(method, path, body, headers)
            with contextlib.closing(connection), _in_words(self._parts.netloc):
                return answer.read()

        text = _repeated(whole) if repeat or method == "GET" else whole()
        with _understood(self._parts.netloc):
            return json.loads(text)

    @contextlib.contextmanager
    def _stream(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """An answer of any size. What breaks off in the middle of it is not repeated."""
        connection, answer = _repeated(lambda: self._let_in("GET", path, None, {}))
        with contextlib.closing(connection):
            yield answer

    def _let_in(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> _Exchange:
        """A request with a token; a token that has run out is replaced once, because then nothing was done."""
        fresh = self._token is None
        self._token = self._token or self._log_in()
        connection, answer = self._send(
            method, f"/imports/api/v1{path}", body, {**headers, "Authorization": f"Bearer {self._token}"}
        )
        if answer.status < 300:
            return connection, answer
        with contextlib.closing(connection):
            fault = _fault(answer)
        if answer.status == 401 and self._login["username"] and not fresh:
            self._token = None
            return self._let_in(method, path, body, headers)
        raise fault

    def _log_in(self) -> str:
        if not self._login["username"]:
            raise errors.NotAllowed("The desk needs a token, or a user and a password.")
        headers = {"Content-Type": "application/json"}
        connection, answer = self._send("POST", "/auth/token", json.dumps(self._login).encode(), headers)
        with contextlib.closing(connection), _in_words(self._parts.netloc):
            if answer.status == 401:
                raise errors.NotAllowed("Airflow does not know this user with this password.")
            if answer.status >= 300:
                raise _fault(answer)
            with _understood(self._parts.netloc):
                return str(json.loads(answer.read())["access_token"])

    def _send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> _Exchange:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        with contextlib.ExitStack() as stack, _in_words(self._parts.netloc):
            connection = kind(
                self._parts.hostname or "", self._parts.port, timeout=self._timeout, blocksize=BLOCK_BYTES
            )
            stack.callback(connection.close)
            if hasattr(body, "seek"):
                body.seek(0)
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # refused early: the answer says why
                connection.request(method, self._base + path, body, dict(headers))
            answer = connection.getresponse()
            stack.pop_all()
            return connection, answer


_Exchange = tuple[http.client.HTTPConnection, http.client.HTTPResponse]


def _repeated(request: Callable[[], T]) -> T:
    """What a request gives, at one of several tries."""
    for pause in WAITS:
        with contextlib.suppress(errors.TryAgain):
            return request()
        time.sleep(pause)
    return request()


@contextlib.contextmanager
def _in_words(desk: str) -> Iterator[None]:
    """Trouble of the network in words. Raises TryAgain."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise errors.TryAgain(f"{desk} cannot be reached ({str(error) or type(error).__name__}).") from None


@contextlib.contextmanager
def _understood(desk: str) -> Iterator[None]:
    """Raises SetupError for what is no answer of a desk."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError):
        raise errors.SetupError(f"What answers at {desk} is no import desk.") from None


def _fault(answer: http.client.HTTPResponse) -> errors.RowledgerError:
    """A problem document (RFC 9457) as an exception."""
    status = answer.status
    with contextlib.suppress(ValueError, OSError, http.client.HTTPException):
        told = json.loads(answer.read(BLOCK_BYTES))
        if isinstance(told, dict) and isinstance(told.get("detail"), str):
            return _told(status, told["detail"], told, answer.getheader("Retry-After") is not None)
    return _told(status, f"The server answered {status} {answer.reason}.", {}, status in (502, 504))


def _told(status: int, sentence: str, more: Mapping[str, Any], later: bool) -> errors.RowledgerError:
    if later or status == 503:
        return errors.TryAgain(sentence)
    if status == 409 and "seqno" in more:
        return errors.DuplicateUpload(more["seqno"], more.get("file_name", "The file"))
    if status == 413 or "rule" in more:
        return errors.FileError(more.get("rule", "too_large"), sentence)
    kinds = {401: errors.NotAllowed, 403: errors.NotAllowed, 404: errors.UnknownCode, 409: errors.NotPossible,
             412: errors.ChangedMeanwhile, 422: errors.UnknownCode, 507: errors.DiskFull}  # fmt: skip
    return kinds.get(status, errors.SetupError if status < 500 else errors.RowledgerError)(sentence)


def _query(told: Mapping[str, Any]) -> str:
    """A query string; what is None or empty is left out."""
    words = {
        n: str(v).lower() if isinstance(v, bool) else v for n, v in told.items() if v is not None and v != []
    }
    return "?" + urlencode(words, doseq=True, errors="backslashreplace")
