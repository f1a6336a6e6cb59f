"""Files that are judged and not kept: in a folder of their own, by the judge, for as long as somebody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

import anyio
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Request

from rowledger.desk.batch_view import without_quotes, without_values
from rowledger.desk.context import Desk
from rowledger.desk.problems import Refused
from rowledger.errors import NotJudged
from rowledger.judges import Case, Judgement

SECONDS = 60.0  # of a few records
FILE_SECONDS = 300.0  # of a whole file
GRACE_SECONDS = 5.0  # for what is done in a moment: a judge that is stopped has to be started anew
ORPHAN_SECONDS = 2 * 3600  # longer than a file can arrive and be judged: its process is dead
ASKING = 16  # requests that wait for a judge
PREFIX = "check-"
_asking = CapacityLimiter(ASKING)


@contextlib.asynccontextmanager
async def folder(desk: Desk) -> AsyncIterator[Path]:
    """A folder that is gone at the end, with whatever the judge has left in it."""
    place = await run_sync(_folder, desk.settings.scratch)
    try:
        yield Path(place.name)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(place.cleanup)


def _folder(scratch: Path) -> tempfile.TemporaryDirectory[str]:
    scratch.mkdir(parents=True, exist_ok=True)
    for path in scratch.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
                rmtree(path, ignore_errors=True)
    return tempfile.TemporaryDirectory(dir=scratch, prefix=PREFIX, ignore_cleanup_errors=True)


async def judged(request: Request, desk: Desk, case: Case, seconds: float) -> Judgement:
    """The judgement; the judge is stopped when whoever asked goes away. Raises Refused or NotJudged."""
    if desk.judge is None:
        raise Refused(409, "Nothing here can check a file.")
    if _asking.available_tokens < 1:
        raise NotJudged("As many checks are under way as may be at once. Nothing was checked.")
    stop = threading.Event()
    watching = asyncio.create_task(_watch(request, stop))
    try:
        return await run_sync(desk.judge.ask, case, seconds, stop, limiter=_asking)
    finally:
        stop.set()
        watching.cancel()


async def _watch(request: Request, stop: threading.Event) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(1)
    await asyncio.sleep(GRACE_SECONDS)
    stop.set()


def told(judgement: Judgement, personal: bool) -> dict[str, Any]:
    """A judgement for programs; without the right on personal data no value of the file or of the database."""
    if personal:
        return dict(vars(judgement))
    message = judgement.error_message
    return vars(judgement) | {
        "error_message": message and without_quotes(message),
        "warnings": [without_values(warning) for warning in judgement.warnings],
        "reasons": [{name: value for name, value in one.items() if name != "example"} for one in judgement.reasons],
        "records": [_without_values(record) for record in judgement.records],
    }  # fmt: skip


def _without_values(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "record_no": record["record_no"],
        "outcome": record["outcome"],
        "reasons": [without_values(reason) for reason in record["reasons"] or ()],
        "warnings": [without_values(warning) for warning in record["warnings"] or ()],
    }
