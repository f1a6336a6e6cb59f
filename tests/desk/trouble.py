"""The desk on a real server, under a prefix beside a login, as Airflow has it; and trouble on the way to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

PASSWORD = "right"


class Trouble:
    """Stands before the app: each of ``coming`` befalls one request, in order."""

    def __init__(self, app: Any) -> None:
        self.app, self.coming, self.seen = app, list[str](), list[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/imports"):
            self.seen.append(f"{scope['method']} {scope['path']}")
            if self.coming:
                await getattr(self, self.coming.pop(0))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def away(self, scope: Any, receive: Any, send: Any) -> None:
        """A server that is just being started again."""
        headers = [(b"content-type", b"text/html"), (b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 502, "headers": headers})
        await send({"type": "http.response.body", "body": b"away"})

    async def lost(self, scope: Any, receive: Any, send: Any) -> None:
        """Everything is done, but nobody hears of it."""

        async def nothing(_: Any) -> None:
            pass

        await self.app(scope, receive, nothing)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})

    async def cut(self, scope: Any, receive: Any, send: Any) -> None:
        """An answer that breaks off in its middle."""

        await self._half(scope, receive, send, lambda body: body[: len(body) // 2])

    async def cut_at_a_line(self, scope: Any, receive: Any, send: Any) -> None:
        """The same, and what has come looks whole."""
        await self._half(scope, receive, send, lambda body: body[: body.rfind(b"\n", 0, -1) + 1])

    async def _half(self, scope: Any, receive: Any, send: Any, beginning: Callable[[bytes], bytes]) -> None:
        async def half(message: Any) -> None:
            if message["type"] == "http.response.body":
                body = beginning(message.get("body", b""))
                message = {**message, "body": body, "more_body": True}
            await send(message)

        await self.app(scope, receive, half)

    async def another(self, scope: Any, receive: Any, send: Any) -> None:
        """Something else that lives at this address."""
        body = b"<!doctype html>"
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def with_login(desk: FastAPI) -> FastAPI:
    """The desk where Airflow would have it; a user's token is the name of the role."""
    outer = FastAPI()

    @outer.post("/auth/token")
    async def log_in(request: Request) -> JSONResponse:
        told = await request.json()
        if told["password"] != PASSWORD:
            return JSONResponse({"detail": "Invalid credentials"}, 401)
        return JSONResponse({"access_token": told["username"]}, 201)

    outer.mount("/imports", desk)
    return outer


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
