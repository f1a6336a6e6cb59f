"""One person, erased on request from all of a domain, with a receipt that does not say who it was.

In: an external id or an email. Out: the contact with its histories is gone; the records about it, and those that name
one of its keys, keep number, outcome, rule and column, and lose cells, values, and values before; what roll backs have
kept of it goes as well; contracts lose their link; the uploaded files of the batches that named it are let go, for
nobody can cut one person out of a file and leave evidence behind. The receipt counts it, by place and batch.

The person is who has the key, with whoever was rolled back and had a key of it; no other contact is, whatever keys it had.

Batches that have not ended are left alone and listed: what they say of the person is erased once they have. Whoever
uploads the person again makes a new contact: nothing is remembered by which it could be refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from psycopg2 import sql

from rowledger import batches, domains, staging, uploads
from rowledger.db import Connection, Cursor, queries, row, rows, transaction, trial
from rowledger.errors import UnknownCode
from rowledger.pipeline import Worker
from rowledger.stores import Store

_SQL = queries("erasure")
_LOCKED = ("contact", "contract")  # a contract names its contact
_STEPS = (
    "erase_contracts",
    "erase_subscription_history",
    "erase_subscriptions",
    "erase_origins",
    "erase_contact",
    "erase_records",
    "erase_before",
    "left_contacts",
    "erase_parked",
    "erase_roll_backs",
    "erase_examples",
    "erase_messages",
    "erase_events",
    "erase_lanes",
)
_FOUND = ("rolled_back", "person", "person_key", "person_record", "person_batch")


@dataclass(frozen=True)
class Count:
    """How many things were erased at a place, of a batch if it is about one; or were LEFT, as the place says."""

    place: str
    seqno: int | None
    items: int


@dataclass(frozen=True)
class Receipt:
    """What was erased where, when and by whom; of whom, only a person who knows the key can tell."""

    erasure_id: int
    domain: str
    erased_at: datetime
    by: str
    salt: str
    key_sha256: str
    counts: tuple[Count, ...]

    def is_about(self, key: str) -> bool:
        """Whether this is the receipt of that external id or email."""
        return hmac.compare_digest(self.key_sha256, _hash(self.salt, _normal(key)))

    def as_dict(self) -> dict[str, Any]:
        """What is shown to programs."""
        return asdict(self)


def erase(worker: Worker, domain: str, key: str) -> Receipt:
    """Erase the person; nobody brings back what is gone. Raises UnknownCode if nothing at all is known of the key."""
    receipt = _erase(worker, domain, key)
    with transaction(worker.connection) as cursor:
        unneeded = rows(cursor, _SQL["unneeded_files"], {"erasure_id": receipt.erasure_id})
    for one in unneeded:  # should this be killed, housekeeping does the rest
        batches.let_file_go(worker.connection, worker.settings.uploads, one["sha256"])
    return receipt


def forecast(worker: Worker, domain: str, key: str) -> Receipt:
    """The receipt as it would be; erases nothing. Raises UnknownCode."""
    with trial(worker.connection):
        return _erase(worker, domain, key)


def receipt(connection: Connection, erasure_id: int) -> Receipt:
    """A receipt that was given. Raises UnknownCode."""
    with transaction(connection) as cursor:
        return _receipt(cursor, erasure_id)


def receipts(connection: Connection, limit: int) -> list[Receipt]:
    """The newest receipts, the newest first."""
    with transaction(connection) as cursor:
        return [_receipt(cursor, r["erasure_id"]) for r in rows(cursor, _SQL["receipts"], {"limit": limit})]


def _erase(worker: Worker, domain: str, key: str) -> Receipt:
    search, given = _Search(worker.settings.uploads), None
    # Again, if a batch has failed while files were searched, or the person has got another key.
    while given is None:
        with transaction(worker.connection) as cursor:
            here: dict[str, Any] = {"domain_id": domains.id_of(cursor, domain), "key": _normal(key)}
            here |= {"domain": domain, "by": worker.by}
            since = (row(cursor, _SQL["now"]) or {})["since"]
            affected = _find(cursor, here | {"named": [], "since": None, "affected": []})
            keys, unsure = _keys(cursor), rows(cursor, _SQL["unsure"], here)
            named = _naming_staged(cursor, here)
        # Between two transactions: reading files may take longer than one may be idle.
        named += _naming(search, keys, unsure)
        with transaction(worker.connection) as cursor:
            here |= {"named": named, "since": since, "affected": sorted({*affected, *named})}
            given = _erase_found(cursor, here, search)
    return given


def _find(cursor: Cursor, here: dict[str, Any]) -> list[int]:
    """Make the temporary tables of the person, its keys, and the records and batches that name it; returns the last."""
    for table in _FOUND:
        cursor.execute(f"DROP TABLE IF EXISTS pg_temp.{table}")  # of an earlier look of the same trial
    for name in ("find_rolled_back", "find_contacts", "find_keys"):
        cursor.execute(_SQL[name], here)
    added = -1
    while added:  # whoever was rolled back had keys, too, by which others are found
        cursor.execute(_SQL["add_rolled_back"])
        added = cursor.rowcount
        if added:
            cursor.execute("DROP TABLE person_key")
            cursor.execute(_SQL["find_keys"], here)
    for name in ("find_records", "batches"):
        cursor.execute(_SQL[name], here)
    return [one["seqno"] for one in rows(cursor, _SQL["seqnos"])]


def _keys(cursor: Cursor) -> list[str]:
    return [one["key"] for one in rows(cursor, _SQL["keys"])]


def _naming_staged(cursor: Cursor, here: dict[str, Any]) -> list[int]:
    """Of failed batches whose file is not there any more, those whose staged records name the person."""
    found = []
    for one in rows(cursor, _SQL["only_staged"], here):
        staged = sql.SQL(_SQL["staged_naming"]).format(
            staging=staging.table(batches.read(cursor, one["seqno"]))
        )
        if (row(cursor, staged) or {})["named"]:
            found.append(one["seqno"])
    return found


def _erase_found(cursor: Cursor, here: dict[str, Any], search: _Search) -> Receipt | None:
    """Erase what is found now; None, and nothing is erased, if that is more than was searched for in the files."""
    # The fences first, then the turn, as whoever rolls a batch back; then what they keep still is found anew.
    _fence(cursor, here["affected"])
    for kind in _LOCKED:
        cursor.execute(queries("loading")["lock"], here | {"kind": kind})
    # Before the records: what ends after this moment may not be found.
    here |= {"open": [one["seqno"] for one in rows(cursor, _SQL["open"], here)]}
    affected = _find(cursor, here)
    if not search.covers(_keys(cursor), rows(cursor, _SQL["unsure"], here)):
        return None
    _fence(cursor, set(affected) - set(here["affected"]))  # ended meanwhile
    salt = secrets.token_hex(16)
    begun = row(cursor, _SQL["begin"], here | {"salt": salt, "key_sha256": _hash(salt, here["key"])})
    assert begun
    here |= {"erasure_id": begun["erasure_id"], "staged": [r["seqno"] for r in rows(cursor, _SQL["staged"])]}
    for seqno in here["staged"]:
        staging.drop(cursor, batches.read(cursor, seqno))
    for name in (*_STEPS, "erase_files", "shared_files"):
        cursor.execute(_SQL[name], here)
    if not _receipt(cursor, here["erasure_id"]).counts:
        raise UnknownCode(
            f'Nothing is known in domain {here["domain"]} of the external id or the email "{here["key"]}".'
        )
    cursor.execute(_SQL["open_batches"], here)
    return _receipt(cursor, here["erasure_id"])


def _fence(cursor: Cursor, seqnos: Iterable[int]) -> None:
    for seqno in sorted(seqnos):
        batches.fence(cursor, batches.read(cursor, seqno))


class _Search:
    """Which kept files, by their SHA-256, have one of the keys as a word; each is read once for the same keys."""

    def __init__(self, place: Path | Store) -> None:
        self._place, self._keys = place, frozenset[str]()
        self.found: dict[str, bool] = {}

    def look_for(self, keys: Iterable[str], files: Iterable[str]) -> None:
        """Search the files that were not searched for these keys yet."""
        if self._keys != frozenset(keys):
            self._keys, self.found = frozenset(keys), {}
        pattern = _pattern(self._keys)
        for sha256 in files:
            if sha256 not in self.found:
                with uploads.bytes_of(self._place, sha256) as file:
                    self.found[sha256] = pattern is not None and _has(file, pattern)

    def covers(self, keys: Iterable[str], unsure: Iterable[dict[str, Any]]) -> bool:
        """Whether these files were searched for all these keys."""
        return self._keys.issuperset(keys) and all(one["file_sha256"] in self.found for one in unsure)


def _naming(search: _Search, keys: Iterable[str], unsure: list[dict[str, Any]]) -> list[int]:
    """Of batches whose ledger does not tell every record, those whose kept file has a key as a word."""
    search.look_for(keys, (one["file_sha256"] for one in unsure))
    return [one["seqno"] for one in unsure if search.found[one["file_sha256"]]]


def _pattern(keys: Iterable[str]) -> re.Pattern[bytes] | None:
    """The keys as words, in every encoding, each letter composed or not: a file may have either form of it."""
    words = set()
    for encoding in ("utf-8", "cp1252", "utf-16-le", "utf-16-be"):
        for key in keys:
            with suppress(UnicodeEncodeError):  # no file of that encoding has it
                words.add(b"".join(_written(letter, encoding) for letter in key))
    if not words:
        return None
    return re.compile(rb"(?<![0-9A-Za-z])(?:%s)(?![0-9A-Za-z])" % b"|".join(sorted(words)), re.IGNORECASE)


def _written(letter: str, encoding: str) -> bytes:
    """A regular expression of the ways to write a letter of form NFC. Raises UnicodeEncodeError if there is none."""
    forms = [letter]
    while parts := unicodedata.decomposition(forms[-1][0]).split():
        if parts[0].startswith("<"):  # other letters, that only look alike
            break
        forms.append("".join(chr(int(part, 16)) for part in parts) + forms[-1][1:])
    if encoding == "cp1252":  # has no marks of their own
        forms = forms[:1]
    written = [re.escape(form.encode(encoding)) for form in forms]
    return written[0] if len(written) == 1 else b"(?:%s)" % b"|".join(written)


def _has(file: BinaryIO, pattern: re.Pattern[bytes]) -> bool:
    before = b""
    while block := file.read(uploads.BLOCK_BYTES):
        text = before + block
        if pattern.search(text):
            return True
        before = text[-2048:]
    return False


def _receipt(cursor: Cursor, erasure_id: int) -> Receipt:
    found = row(cursor, _SQL["receipt"], {"erasure_id": erasure_id})
    if not found:
        raise UnknownCode(f"There is no receipt {erasure_id}.")
    counts = [Count(**one) for one in rows(cursor, _SQL["counts"], {"erasure_id": erasure_id})]
    return Receipt(**found, counts=tuple(counts))


def _normal(key: str) -> str:
    return unicodedata.normalize("NFC", key.strip())


def _hash(salt: str, key: str) -> str:
    key = key.lower() if "@" in key else key
    return hashlib.sha256(f"{salt} {key}".encode()).hexdigest()
