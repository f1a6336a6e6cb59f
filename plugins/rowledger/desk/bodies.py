"""JSON bodies, read only once access is decided; FastAPI's own body parameters are read before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from rowledger.desk.problems import Refused

MAX_BYTES = 64 * 1024
SECONDS = 30.0
Model = TypeVar("Model", bound=BaseModel)


def body(model: type[Model], limit: int = MAX_BYTES) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that gives the JSON body of a request as a model; no body is an empty one. Raises Refused.

    It has ``limit`` bytes at most. Name it after the dependency that decides on access.
    """

    async def read(request: Request) -> Model:
        try:
            async with asyncio.timeout(SECONDS):
                return _checked(model, await _read(request, limit))
        except TimeoutError:
            raise Refused(408, f"The request did not arrive within {SECONDS:.0f} seconds.") from None

    return read


async def _read(request: Request, limit: int) -> bytes:
    text = bytearray()
    async for part in request.stream():
        text += part
        if len(text) > limit:
            raise Refused(413, f"The request is larger than {limit:,} bytes.")
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if text and media_type != "application/json":
        raise Refused(415, "Send JSON, with the Content-Type application/json.")
    return bytes(text)


def _checked(model: type[Model], text: bytes) -> Model:
    try:
        told = json.loads(text or b"{}", object_pairs_hook=_once, parse_constant=_refuse)
        json.dumps(told, ensure_ascii=False).encode()  # a half of a surrogate pair is no text
    except (ValueError, RecursionError):
        raise Refused(
            422, "The request is not proper JSON: no repeated names, no NaN, no broken characters."
        ) from None
    try:
        return model.model_validate(told)
    except ValidationError as error:
        wrong = [{"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
        sentence = "; ".join(f"{one['field']}: {one['message']}" for one in wrong)
        raise Refused(422, f"The request is wrong. {sentence}.", errors=wrong) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route with such a body."""
    return {"requestBody": {"content": {"application/json": {"schema": model.model_json_schema()}}}}
