"""Looking at feeds: new finished files of their places become batches, each exactly once.

The row of a file and its batch are written in one transaction; only then the file is moved, deleted or left, as its
feed says. Whoever is killed in between leaves that to the next look. Two who look at once do not take turns at a file:
one of them has the feed, and what the other one would take is refused by the database.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowledger import batches, feeds, loading
from rowledger.db import Connection, queries, row, rows, transaction
from rowledger.errors import (
    DuplicateUpload,
    FileChanged,
    PlaceAway,
    PlaceTrouble,
    RecordRefused,
    SetupError,
)
from rowledger.feeds.model import Feed, duration
from rowledger.feeds.places import MAX_ODDITIES, Folder, Found, Place
from rowledger.settings import Settings
from rowledger.stores import Store
from rowledger.templates import ImportTemplate
from rowledger.uploads import Part, Upload

_SQL = queries("feeds")
log = logging.getLogger("rowledger.feeds")
FILES_PER_LOOK = 1000  # the oldest; the others come in the next look
PATIENCE_SECONDS = 30  # a look waits for files to settle if it does not take longer


@dataclass
class Look:
    """What a look at one feed has brought: batches, bytes that were known, sentences about what was left alone."""

    feed: Feed
    seqnos: list[int] = field(default_factory=list)
    duplicates: list[tuple[str, int]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unsettled: int = 0

    def leave(self, sentence: str) -> None:
        """Note what was left alone, and why."""
        self.left.append(sentence)


@dataclass(frozen=True)
class Looker:
    """Who looks: a connection, where uploads and templates are, how large a file may be, and how to get at a place."""

    connection: Connection
    uploads: Path | Store
    find: Callable[[Feed], ImportTemplate]
    place_of: Callable[[Feed], Place]
    max_bytes: int


def look(looker: Looker, chosen: Sequence[Feed]) -> list[Look]:
    """Look at feeds, in this order, and once more at those whose newest files may settle within seconds.

    A feed that somebody else looks at just now is left out; one that is in trouble keeps no other from being looked at.
    Raises TryAgain when the database is away.
    """
    looks = [one for feed in chosen if (one := _look(looker, feed))]
    unsettled = [one for one in looks if one.unsettled and _settles_soon(one.feed)]
    if unsettled:
        time.sleep(max(duration(one.feed.settled_after).total_seconds() for one in unsettled))
        for first in unsettled:
            again = _look(looker, first.feed)
            if again:
                first.seqnos += again.seqnos
                first.duplicates += again.duplicates
                first.left, first.unsettled = again.left, again.unsettled
    return looks


def _settles_soon(feed: Feed) -> bool:
    return duration(feed.settled_after).total_seconds() <= PATIENCE_SECONDS


def _look(looker: Looker, feed: Feed) -> Look | None:
    """One look at one feed; None if somebody else is looking."""
    with _alone(looker.connection, feed) as ours:
        if not ours:
            return None
        with transaction(looker.connection) as cursor:
            cursor.execute(_SQL["remember"], {"feed": feed.name, "kind": feed.kind, "domain": feed.domain})
        done = Look(feed)
        try:
            _take_all(looker, done)
        except (PlaceTrouble, SetupError) as error:  # of this feed alone
            done.leave(str(error))
        with transaction(looker.connection) as cursor:
            cursor.execute(_SQL["looked"], {"feed": feed.name, "trouble": "\n".join(done.left) or None})
    return done


@contextmanager
def _alone(connection: Connection, feed: Feed) -> Iterator[bool]:
    """One looker at a feed at a time. It saves work; what keeps a file from being taken twice is ``feed_file_once``."""
    asked = {"feed": feed.name}
    with transaction(connection) as cursor:
        got = row(cursor, _SQL["lock"], asked)
    if not (got and got["ours"]):
        yield False
        return
    try:
        yield True
    finally:
        if not connection.closed:
            with transaction(connection) as cursor:
                cursor.execute(_SQL["unlock"], asked)


def _take_all(looker: Looker, done: Look) -> None:
    feed = done.feed
    place = looker.place_of(feed)
    listing = place.files(feed.pattern)
    for sentence in listing.oddities:
        done.leave(sentence)
    _tell_taken_before(looker, done, listing.files)
    _finish(looker, done, place, listing.files, whole=listing.whole)
    new = _small_enough(looker, done, _unknown(looker, feed, listing.files))
    if len(new) > FILES_PER_LOOK:
        log.info("Feed %s: %s new files, the oldest %s now", feed.name, f"{len(new):,}", FILES_PER_LOOK)
    settled = _settled(looker, feed, new[:FILES_PER_LOOK])
    done.unsettled = min(len(new), FILES_PER_LOOK) - len(settled)
    if not settled:  # nothing to read a template for
        return
    template = _template(looker, feed)
    for found in settled:
        try:
            _take(looker, done, template, place, found)
        except PlaceAway:  # the next one would wait in vain, too
            raise
        except (FileChanged, PlaceTrouble) as error:  # of this file; the next one may be well
            done.leave(str(error))


def _template(looker: Looker, feed: Feed) -> ImportTemplate:
    """The template of a feed, if all that it chooses can be chosen. Raises SetupError."""
    template = looker.find(feed)
    batches.check_choices(looker.connection, template, feed.domain, feed.origins, feed.subscriptions)
    return template


def _tell_taken_before(looker: Looker, done: Look, files: list[Found]) -> None:
    """Files that somebody has put back: unless they are written anew they are not taken once more."""
    if done.feed.then == "mark" or not files:
        return
    with transaction(looker.connection) as cursor:
        for one in rows(cursor, _SQL["taken_before"], _given(done.feed, files)):
            done.leave(
                f'"{one["name"]}" was taken before, as import batch {one["seqno"]}, and is left alone; '
                f"to have it taken once more, give it a new time (touch)."
            )


def _unknown(looker: Looker, feed: Feed, files: list[Found]) -> list[Found]:
    """Those that were not taken yet, the oldest first."""
    given = _given(feed, files)
    with transaction(looker.connection) as cursor:
        places = [r["place"] - 1 for r in rows(cursor, _SQL["unknown"], given)] if files else []
    return sorted((files[place] for place in places), key=lambda found: (found.modified, found.name))


def _small_enough(looker: Looker, done: Look, new: list[Found]) -> list[Found]:
    """Those that are not too large; the others take nobody's place in a look, and some of them are told."""
    large = [found for found in new if found.bytes > looker.max_bytes]
    for found in large[:MAX_ODDITIES]:
        done.leave(
            f'"{found.shown}" has {found.bytes:,} bytes, more than the {looker.max_bytes:,} that are taken.'
        )
    if len(large) > MAX_ODDITIES:
        done.leave(f"{len(large) - MAX_ODDITIES:,} more files are too large.")
    return [found for found in new if found.bytes <= looker.max_bytes]


def _settled(looker: Looker, feed: Feed, new: list[Found]) -> list[Found]:
    """Those that have looked the same for long enough."""
    given = _given(feed, new)
    with transaction(looker.connection) as cursor:
        cursor.execute(_SQL["forget_seen"], given)
        cursor.execute(_SQL["see"], given)
        asked = {"feed": feed.name, "settled_after": duration(feed.settled_after)}
        names = {r["name"] for r in rows(cursor, _SQL["settled"], asked)}
    return [found for found in new if found.shown in names]


def _given(feed: Feed, files: list[Found]) -> dict[str, object]:
    return {
        "feed": feed.name,
        "names": [found.shown for found in files],
        "identities": [found.identity for found in files],
    }


def _take(looker: Looker, done: Look, template: ImportTemplate, place: Place, found: Found) -> None:
    """Keep the bytes of a file, make a batch of them, and do with the file as the feed says."""
    feed = done.feed
    with Part(looker.uploads) as part:
        for block in place.reading(found):
            part.write(block)
        upload = part.keep(found.name)
    try:
        done.seqnos.append(_register(looker, feed, template, found, upload))
    except DuplicateUpload as earlier:
        _note_duplicate(looker, feed, found, upload, earlier.seqno)
        done.duplicates.append((found.shown, earlier.seqno))
    except RecordRefused as refused:
        if refused.constraint != "feed_file_once":
            raise
        return  # somebody else was faster, and does the rest
    _finish(looker, done, place, [found])


def _register(looker: Looker, feed: Feed, template: ImportTemplate, found: Found, upload: Upload) -> int:
    from rowledger.suites import suite_hash

    return batches.register(
        looker.connection, upload, template, suite_hash(template), feed.domain, origins=feed.origins,
        subscriptions=feed.subscriptions, by=feed.who, through="feed",
        also=lambda cursor, seqno: cursor.execute(_SQL["take"], _row(feed, found, upload, seqno)),
    )  # fmt: skip


def _note_duplicate(looker: Looker, feed: Feed, found: Found, upload: Upload, seqno: int) -> None:
    """The same bytes as an earlier batch's: its event, once, and no batch."""
    with transaction(looker.connection) as cursor:
        if row(cursor, _SQL["take_duplicate"], _row(feed, found, upload, seqno)):
            batches.note(cursor, seqno, "sent again", feed.who, found.shown)


def _row(feed: Feed, found: Found, upload: Upload, seqno: int) -> dict[str, object]:
    return {
        "feed": feed.name, "name": found.shown, "identity": found.identity, "bytes": upload.bytes,
        "sha256": upload.sha256, "seqno": seqno, "limits": json.dumps(feed.unusual.limits),
        "stays": feed.then == "mark",
    }  # fmt: skip


def _finish(looker: Looker, done: Look, place: Place, files: list[Found], *, whole: bool = False) -> None:
    """Move or delete what was taken, also by somebody who was killed before he could.

    Only who knows the ``whole`` place can tell that a file is gone; to others it may be one that could not be moved.
    """
    feed = done.feed
    here = {(found.shown, found.identity): found for found in files}
    with transaction(looker.connection) as cursor:
        waiting = rows(cursor, _SQL["unhandled"], {"feed": feed.name})
    for one in waiting:
        gone = Found(one["name"], one["identity"], 0, 0)
        found, number = here.get((one["name"], one["identity"]), gone), one["feed_file_id"]
        if found is gone and not whole:
            continue
        try:
            if feed.then == "delete":
                place.delete(found, number)
            elif feed.then == "move" and found is not gone:
                place.move(found, feed.move_to, number)
        except FileChanged as error:  # another file by that name, which is a new one
            log.info("Feed %s: %s", feed.name, error)
        except PlaceAway:
            raise
        except PlaceTrouble as error:
            done.leave(str(error))
            continue
        with transaction(looker.connection) as cursor:
            cursor.execute(_SQL["handled"], {"feed_file_id": number})


def local(connection: Connection, settings: Settings) -> Looker:
    """A looker at the folders of this machine."""

    def find(feed: Feed) -> ImportTemplate:
        return feeds.template_of(feed, settings.templates, loading.kinds())

    def place_of(feed: Feed) -> Place:
        if feed.remote:
            raise PlaceTrouble(
                f"{feed.place} is reached through Airflow only; its DAG {feed.kind}_import looks there."
            )
        return Folder(settings.home / feed.place)

    return Looker(connection, settings.uploads, find, place_of, settings.max_upload_bytes)


def check(looker: Looker, feed: Feed) -> str | None:
    """What keeps a feed from being taken, in a sentence; None if it is well. Raises TryAgain."""
    try:
        _template(looker, feed)
        looker.place_of(feed).files(feed.pattern)
    except (PlaceTrouble, SetupError) as error:
        return str(error)
    return None


def known(connection: Connection) -> dict[str, dict[str, Any]]:
    """What is remembered of feeds, by their names."""
    with transaction(connection) as cursor:
        return {one["name"]: one for one in rows(cursor, _SQL["list"])}
