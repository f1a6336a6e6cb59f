"""Messages leave: mail through Airflow's notifier, webhooks signed with the password of an Airflow connection."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Connection as AirflowConnection
from airflow.sdk import Context, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from rowledger import feeds, loading
from rowledger.airflow.tasks import task_states, worker_of_task
from rowledger.errors import TryAgain
from rowledger.feeds import notices
from rowledger.feeds.notices import Message

log = logging.getLogger("rowledger.airflow")
SECONDS = 15  # for a webhook to answer
MESSAGES_PER_RUN = 200


def tell() -> None:
    """Write what is new and send what is due; skip when there is nothing. Raises TryAgain if something was not taken."""
    context, tried, troubles = get_current_context(), 0, []
    with task_states(), worker_of_task() as mine:
        good, errors = feeds.read_feeds(mine.settings.feeds, loading.kinds())
        for error in errors:
            log.warning("A feed is left out: %s", error)
        notices.write(mine.connection, good, feeds.read_domains(mine.settings.feeds))
        for message in notices.due(mine.connection):
            tried += 1
            trouble = _send(message, context)
            if trouble:
                given_up = notices.not_sent(mine.connection, message, trouble)
                troubles.append(
                    f"{message.scope} by {message.channel}: {trouble}{' Given up.' if given_up else ''}"
                )
            else:
                notices.sent(mine.connection, message)
                log.info("Told by %s: %s", message.channel, message.subject)
            if tried >= MESSAGES_PER_RUN:
                break
        if troubles:
            raise TryAgain(f"Not sent, and tried again later: {' '.join(troubles)}")
    if not tried:
        raise AirflowSkipException("There is nothing to tell.")


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
    try:
        connection.request("POST", f"{url.path or '/'}{f'?{url.query}' if url.query else ''}", body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise ConnectionError(f"the answer was {status}")


def _connection(url: Any) -> http.client.HTTPConnection:
    if url.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(url.hostname, url.port, timeout=SECONDS, context=context)
    return http.client.HTTPConnection(url.hostname, url.port, timeout=SECONDS)
