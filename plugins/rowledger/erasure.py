"""One person, erased on request from all of a domain, with a receipt that does not say who it was.

In: an external id or an email. Out: the contact with its histories is gone; the records about it, and those that name
one of its keys, keep number, outcome, rule and column, and lose cells, values, and values before; what roll backs have
kept of it goes as well; contracts lose their link; the uploaded files of the batches that named it are let go, for
nobody can cut one person out of a file and leave evidence behind. The receipt counts it, by place and batch.

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
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

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
    "erase_parked",
    "erase_roll_backs",
    "erase_examples",
    "erase_messages",
    "erase_events",
)


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
    key = _normal(key)
    with transaction(worker.connection) as cursor:
        here = {"domain_id": domains.id_of(cursor, domain), "key": key, "domain": domain, "by": worker.by}
        since = (row(cursor, _SQL["now"]) or {})["since"]
        affected = _find(cursor, here | {"named": [], "since": None, "affected": []})
        keys = [r["key"] for r in rows(cursor, _SQL["keys"])]
        unsure = rows(cursor, _SQL["unsure"], here)
        for table in ("person", "person_key", "person_record", "person_batch"):
            cursor.execute(f"DROP TABLE {table}")
    # Between two transactions: reading files may take longer than one may be idle.
    named = _naming(worker.settings.uploads, keys, unsure)
    with transaction(worker.connection) as cursor:
        affected = sorted({*affected, *named})
        return _erase_found(cursor, here | {"named": named, "since": since, "affected": affected})


def _find(cursor: Cursor, here: dict[str, Any]) -> list[int]:
    """Make the temporary tables of the person, its keys, and the records and batches that name it; returns the last."""
    for name in ("find_contacts", "find_keys", "find_records", "batches"):
        cursor.execute(_SQL[name], here)
    return [one["seqno"] for one in rows(cursor, _SQL["seqnos"])]


def _erase_found(cursor: Cursor, here: dict[str, Any]) -> Receipt:
    # The fences first, then the turn, as whoever rolls a batch back; then what they keep still is found anew.
    _fence(cursor, here["affected"])
    for kind in _LOCKED:
        cursor.execute(queries("loading")["lock"], here | {"kind": kind})
    _fence(cursor, set(_find(cursor, here)) - set(here["affected"]))  # ended meanwhile
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


def _naming(place: Path | Store, keys: Iterable[str], unsure: Iterable[dict[str, Any]]) -> list[int]:
    """Of batches whose ledger does not tell every record, those whose kept file has a key as a word."""
    texts = {
        key.encode(encoding, "ignore")
        for key in keys
        for encoding in ("utf-8", "cp1252", "utf-16-le", "utf-16-be")
    }
    words = [rb"(?<![0-9A-Za-z])" + re.escape(text) + rb"(?![0-9A-Za-z])" for text in texts if text]
    if not words:
        return []
    pattern = re.compile(b"|".join(words), re.IGNORECASE)
    found: dict[str, bool] = {}
    for one in unsure:
        sha256 = one["file_sha256"]
        if sha256 not in found:
            with uploads.bytes_of(place, sha256) as file:
                found[sha256] = _has(file, pattern)
    return [one["seqno"] for one in unsure if found[one["file_sha256"]]]


def _has(file: BinaryIO, pattern: re.Pattern[bytes]) -> bool:
    before = b""
    while block := file.read(uploads.BLOCK_BYTES):
        if pattern.search(before + block):
            return True
        before = block[-2048:]
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
