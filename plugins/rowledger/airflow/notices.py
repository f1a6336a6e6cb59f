"""Messages leave: mail through Airflow's notifier, webhooks signed with the password of an Airflow connection."""

from __future__ import annotations

import http.client
import io
import json
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Connection as AirflowConnection
from airflow.sdk import Context, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from rowledger import feeds, loading
from rowledger.airflow.tasks import task_states, worker_of_task
from rowledger.errors import FeedError, TryAgain
from rowledger.feeds import Tell, notices
from rowledger.feeds.notices import Message

log = logging.getLogger("rowledger.airflow")
SECONDS = 15  # for a webhook to be reached, and as many to answer
MESSAGES_PER_RUN = 200


def tell() -> None:
    """Write what is new and send what is due; skip when there is nothing. Raises TryAgain if something was not taken."""
    context, tried = get_current_context(), 0
    troubles: dict[str, str] = {}  # by the ids of the messages
    with task_states(), worker_of_task() as mine:
        good, errors = feeds.read_feeds(mine.settings.feeds, loading.kinds())
        for error in errors:
            log.warning("A feed is left out: %s", error)
        domains, wrong = _domains(mine.settings.feeds)
        notices.write(mine.connection, good, domains)
        for message in notices.due(mine.connection, troubles):
            tried += 1
            trouble = _send(message, context)
            if trouble:
                given_up = notices.not_sent(mine.connection, message, trouble)
                troubles[message.message_id] = (
                    f"{message.scope} by {message.channel}: {trouble}{' Given up.' if given_up else ''}"
                )
            else:
                notices.sent(mine.connection, message)
                log.info("Told by %s: %s", message.channel, message.subject)
            if tried >= MESSAGES_PER_RUN:
                break
        if troubles:
            raise TryAgain(f"Not sent, and tried again later: {' '.join(troubles.values())}")
        if wrong:
            raise wrong
    if not tried:
        raise AirflowSkipException("There is nothing to tell.")


def _domains(folder: Path) -> tuple[dict[str, Tell], FeedError | None]:
    """Who is told in which domain; if that cannot be told, nobody, and why: what feeds say is told nevertheless."""
    try:
        return feeds.read_domains(folder), None
    except FeedError as error:
        log.warning("Nobody is told for a whole domain until this is mended: %s", error)
        return {}, error


def _send(message: Message, context: Context) -> str | None:
    """Send one message; what went wrong, if something did."""
    try:
        if message.channel == "mail":
            _mail(message, context)
        else:
            _post(message)
    except Exception as error:  # noqa: BLE001 - whatever a server does, the next message is sent
        return f"{type(error).__name__}: {error}."
    return None


def _mail(message: Message, context: Context) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    # Not rendered: names of files are no templates.
    SmtpNotifier(
        to=message.recipient["to"], subject=message.subject, html_content=message.html,
        custom_headers={"Message-ID": f"<{message.message_id}@rowledger>"},
    ).notify(context)  # fmt: skip


def _post(message: Message) -> None:
    """Raises ConnectionError unless the answer is a success. Redirections are not followed."""
    url, body = (
        urlsplit(message.recipient["url"]),
        json.dumps({"id": message.message_id} | message.body).encode(),
    )
    timestamp, secret = int(time.time()), AirflowConnection.get(message.recipient["secret"]).password
    if not secret:
        raise ConnectionError(f'the Airflow connection "{message.recipient["secret"]}" has no password')
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": message.message_id,
        "Rowledger-Timestamp": str(timestamp),
        "Rowledger-Signature": notices.signature(secret, timestamp, body),
    }
    connection = _connection(url)
    connection.response_class = _Answer
    try:
        connection.request("POST", f"{url.path or '/'}{f'?{url.query}' if url.query else ''}", body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise ConnectionError(f"the answer was {status}")


class _Answer(http.client.HTTPResponse):
    """An answer that is there in time: the limit of a socket is one for each read, and a drip never comes to it."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_UntilThen(sock, time.monotonic() + SECONDS))


class _UntilThen(io.RawIOBase):
    """What a socket receives until a moment."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock, self._end = sock, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


def _connection(url: Any) -> http.client.HTTPConnection:
    if url.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(url.hostname, url.port, timeout=SECONDS, context=context)
    return http.client.HTTPConnection(url.hostname, url.port, timeout=SECONDS)
