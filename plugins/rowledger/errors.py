"""Speaking exceptions, in three families that say who must act.

``FileError``: the file is wrong, its sender mends it. ``TryAgain``: a connection, a lock; time mends it.
``SetupError``: the set-up, the request or Rowledger itself is wrong; a retry changes nothing.
A subclass's docstring is its message when none is given.

Messages may quote a file: they are for people who may see the import. What goes into a log is ``in_log`` and ``where``,
which quote nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator


class RowledgerError(Exception):
    """Something went wrong in Rowledger."""

    exit_code = 1
    rule = "set_up"  # the machine word of a batch that fails by it

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__class__.__doc__ or "").strip())

    @property
    def in_log(self) -> str:
        """The message without what it quotes of a file."""
        return str(self)


class FileError(RowledgerError):
    """The file as a whole cannot be imported.

    ``rule`` is the stable machine word, ``place`` the first place in the file ("record 3", "byte 17").
    """

    exit_code = 3

    def __init__(self, rule: str, message: str, place: str | None = None) -> None:
        super().__init__(f"{message} (at {place})" if place else message)
        self.rule, self.place = rule, place

    @property
    def in_log(self) -> str:
        """The rule and the place; the page of the import, and ``rowledger show``, have the sentence."""
        return f"The file is wrong: {self.rule}{f' (at {self.place})' if self.place else ''}; the import says more."


class TryAgain(RowledgerError):
    """The database could not be reached or was busy; try again."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class PlaceTrouble(TryAgain):
    """The place of a feed cannot be used; it is looked at again."""


class PlaceAway(PlaceTrouble):
    """The place of a feed cannot be reached; none of its files can be taken now."""


class FileChanged(TryAgain):
    """A file of a feed is not the one any more that was seen; it waits for the next look."""


class SetupError(RowledgerError):
    """The set-up is wrong; a retry changes nothing."""

    exit_code = 2


class TemplateError(SetupError):
    """An import template is wrong; the message names file, place, fault and remedy."""


class FeedError(SetupError):
    """A feed is wrong; the message names file, place, fault and remedy."""


class UnknownCode(SetupError):
    """A domain, template, origin, subscription or batch that was named does not exist or cannot be chosen."""


class WrongValue(SetupError):
    """A value of reference data is wrong; ``field`` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ChangedMeanwhile(SetupError):
    """Somebody changed this since you looked at it; look at it again."""


class DuplicateUpload(SetupError):
    """The same bytes were uploaded before with the same template and domain."""

    exit_code = 5

    def __init__(self, seqno: int, file_name: str) -> None:
        super().__init__(
            f'"{file_name}" was uploaded before as import batch {seqno} (same bytes, same template and domain). '
            f"Use --again to work it off once more."
        )
        self.seqno, self.file_name = seqno, file_name


class NotAllowed(SetupError):
    """The desk does not know you, or your role may not do this."""


class NotPossible(SetupError):
    """What was asked for is not possible for an import batch in this state."""


class WorkerLost(SetupError):
    """A batch was taken on again and again, and each worker was lost without a word."""

    rule = "worker_lost"


class NotReadable(SetupError):
    """A file cannot be read, or is none."""


class NotKept(SetupError):
    """The upload could not be kept."""


class DiskFull(NotKept):
    """The disk that keeps uploads is full."""


class KeyReused(SetupError):
    """This Idempotency-Key belongs to another upload; send this one with a key of its own."""


class NotJudged(SetupError):
    """The check did not come to its end; nothing of it was kept."""


class JudgedTooLong(NotJudged):
    """The check took too long and was stopped; nothing of it was kept."""


class Fenced(RowledgerError):
    """Another worker has taken over this batch; this one stops and has written nothing more."""

    exit_code = 4


class Stopped(Fenced):
    """Somebody has paused or cancelled this batch; its worker stops and has written nothing more."""


class RecordRefused(RowledgerError):
    """The database refused a statement because of the values of one record (class 22 or 23).

    ``sqlstate``, ``constraint`` and ``column`` are kept; the driver's text is not, it carries personal data.
    """

    def __init__(self, sqlstate: str, constraint: str | None, column: str | None) -> None:
        super().__init__(
            f"The database refused a value (SQLSTATE {sqlstate}, {constraint or column or 'no name'})."
        )
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.column = column


def where(error: BaseException) -> str:
    """Where an error came from, for a log: sorts and lines of code, no message, for it may have values of a file."""
    return "\n".join(_where(error))


def _where(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _where(before)
        yield "which led to"
    yield from (line.rstrip() for line in traceback.format_tb(error.__traceback__))
    yield type(error).__name__
