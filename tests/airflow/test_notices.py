"""The body of the task that tells, against a real mail server and a real webhook; no Airflow runs here."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from rowledger import pipeline
from rowledger.airflow import local
from rowledger.db import Connection, transaction
from rowledger.settings import Settings

ROOT = Path(__file__).parent.parent.parent
CANARY = "CANARY"
TELL = """
from types import SimpleNamespace
from airflow.sdk.execution_time.context import set_current_context
from rowledger.airflow import notices
notices.SECONDS = {seconds}
run = SimpleNamespace(dag_id="import_notices", run_id="run", triggering_user_name=None)
with set_current_context({{"dag_run": run, "run_id": "run"}}):
    try:
        notices.tell()
        print("told")
    except Exception as error:
        print(type(error).__name__, error)
"""


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def webhook(got: list[tuple[dict[str, str], bytes]], answers: list[int]) -> HTTPServer:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((dict(self.headers), body))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return HTTPServer(("127.0.0.1", 0), Hook)


def dripping() -> socketserver.TCPServer:
    """Answers a byte at a time, for ever."""

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while True:
                    self.request.sendall(b"H")
                    time.sleep(0.2)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    return Server(("127.0.0.1", 0), Drip)


def mail_server(got: list[str]) -> socketserver.TCPServer:
    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            data: list[str] | None = None
            for line in self.rfile:
                text = line.decode().rstrip("\r\n")
                if data is not None:
                    if text != ".":
                        data.append(text)
                        continue
                    got.append("\n".join(data))
                    data = None
                elif text.upper() == "DATA":
                    data = []
                    self.wfile.write(b"354 go on\r\n")
                    continue
                self.wfile.write(b"250 well\r\n")

    return socketserver.TCPServer(("127.0.0.1", 0), Mail)


def tell(home: Path, settings: Settings, mail_port: int, seconds: int = 15) -> str:
    """One try of the task, in a process of its own; the last line that it prints."""
    mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": mail_port,
            "extra": {"disable_ssl": True, "disable_tls": True, "from_email": "rowledger@example.com"}}  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "config"), str(ROOT / "plugins")]),
        "AIRFLOW_CONN_ROWLEDGER": local.airflow_connection(str(settings.database_url)),
        "AIRFLOW_CONN_HOOK": json.dumps({"conn_type": "generic", "password": "secret"}),
        "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(mail),
        "ROWLEDGER_HOME": str(settings.home),
        "ROWLEDGER_FEEDS": str(settings.home / "feeds"),
    }
    done = subprocess.run(
        [sys.executable, "-c", TELL.format(seconds=seconds)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1]


def test_people_and_programs_are_told_again_until_they_have_it_and_never_of_a_value(
    settings: Settings, connection: Connection, submit: Callable[..., int], tmp_path: Path
) -> None:
    hooked: list[tuple[dict[str, str], bytes]] = []
    mailed: list[str] = []
    with serving(webhook(hooked, [500, 200])) as hook_port, serving(mail_server(mailed)) as mail_port:
        (settings.home / "feeds").mkdir(parents=True)
        (settings.home / "feeds" / "domains.yml").write_text(
            "domains: {DEMO: {of: [executed], mail: [ops@example.com], "
            f"webhook: {{url: 'http://127.0.0.1:{hook_port}/hook?a=b', secret: hook}}}}}}\n"
        )
        assert tell(tmp_path, settings, mail_port) == "AirflowSkipException There is nothing to tell."
        seqno = submit(f"Customer number,Email,Last name,Country\n1,{CANARY}@example.com,{CANARY},DE\n")
        pipeline.work(pipeline.Worker(connection, settings, "tester"), seqno)
        said = tell(tmp_path, settings, mail_port)
        assert said == (
            "TryAgain Not sent, and tried again later: "
            "domain DEMO by webhook: ConnectionError: the answer was 500."
        )
        with transaction(connection) as cursor:
            cursor.execute("UPDATE notice_message SET next_try_at = now()")
        assert tell(tmp_path, settings, mail_port) == "told"

    (mail,) = mailed
    assert "Subject: Rowledger, domain DEMO: 1 executed" in mail
    assert "To: ops@example.com" in mail
    (first, body), (again, same) = hooked
    assert (first["Idempotency-Key"], json.loads(body)) == (again["Idempotency-Key"], json.loads(same))
    assert json.loads(body)["events"][0]["seqno"] == seqno
    signed = again["Rowledger-Timestamp"].encode() + b"." + same
    assert again["Rowledger-Signature"] == f"v1={hmac.new(b'secret', signed, hashlib.sha256).hexdigest()}"
    assert CANARY not in mail + body.decode()


def say(settings: Settings, name: str, text: str) -> None:
    settings.home.joinpath("feeds").mkdir(parents=True, exist_ok=True)
    settings.home.joinpath("feeds", f"{name}.yml").write_text(text, encoding="utf-8")


def hooked_on(port: int) -> str:
    """Of a domain, where it is told that batches are executed."""
    return (
        f"domains: {{DEMO: {{of: [executed], webhook: {{url: 'http://127.0.0.1:{port}/', secret: hook}}}}}}\n"
    )


def test_who_answers_for_ever_is_not_waited_for(
    settings: Settings, connection: Connection, submit: Callable[..., int], tmp_path: Path
) -> None:
    with serving(dripping()) as port:
        say(settings, "domains", hooked_on(port))
        tell(tmp_path, settings, 0)
        pipeline.work(
            pipeline.Worker(connection, settings, "tester"),
            submit("Customer number,Email,Last name,Country\n1,1@example.com,N,DE\n"),
        )
        assert tell(tmp_path, settings, 0, seconds=2) == (
            "TryAgain Not sent, and tried again later: domain DEMO by webhook: TimeoutError: timed out."
        )


def test_a_file_of_domains_that_is_wrong_is_told_and_silences_no_feed(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    hooked: list[tuple[dict[str, str], bytes]] = []
    with serving(webhook(hooked, [200])) as port:
        say(settings, "domains", "domains: {DEMO: {off: [executed]}}\n")
        say(settings, "agency", (
            "{title: An agency, place: x, pattern: '*', kind: contact, domain: DEMO, template: contacts, "
            f"tell: {{webhook: {{url: 'http://127.0.0.1:{port}/', secret: hook}}}}}}\n"
        ))  # fmt: skip
        assert tell(tmp_path, settings, 0).startswith("AirflowFailException")
        with transaction(connection) as cursor:
            cursor.execute("INSERT INTO feed VALUES ('agency', 'contact', 'DEMO')")
            cursor.execute("INSERT INTO feed_alarm (feed, due_at) VALUES ('agency', now())")
        said = tell(tmp_path, settings, 0)
    assert said.startswith("AirflowFailException")
    assert "domains.yml, line 1, domains.DEMO.off: is not a known key" in said
    assert [json.loads(body)["counts"] for _, body in hooked] == [{"missing": 1}]
