"""What docker-compose.yml would run, as processes of this machine: its commands, its environment, its secrets.

Only what a container engine gives is put in: the names of services become addresses of this machine, the volume of
secrets a folder, PostgreSQL the embedded one, object storage moto's server, and each worker a name of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine import execute
from psycopg2.extensions import parse_dsn

from rowledger import db
from rowledger.airflow import local, secret_files
from rowledger.db import Connection

COMPOSE: dict[str, Any] = yaml.safe_load((local.ROOT / "docker-compose.yml").read_text())
WORKERS = ("worker-1", "worker-2")
TASKS = {"ROWLEDGER_TASKS": "4", "ROWLEDGER_WORKER_TASKS": "2"}  # two workers on two cores
INSTALL_REDIS = (
    "This test needs Redis: `apt-get install redis-server`, or another one that brings `redis-server`."
)
_EMAIL = "{name}@example.com"


@dataclass
class Composed:
    """The running Airflow and what its containers would see."""

    place: local.Place
    variables: dict[str, str]
    metadata_url: str
    _objects: subprocess.Popen[bytes]
    _opened: Connection | None = None
    _clients: dict[str, local.Api] = field(default_factory=dict)

    @property
    def connection(self) -> Connection:
        """A connection as the role that the containers use."""
        if self._opened is None or self._opened.closed:
            host = self.variables["PGHOST"]
            self._opened = db.connect(f"{self.variables['ROWLEDGER_DATABASE_URL']}?host={host}")
        return self._opened

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        user: str = local.USER,
    ) -> tuple[int, bytes]:
        """What a user is answered."""
        credentials = {"Authorization": f"Bearer {self.client(user).token()}"}
        with contextlib.closing(HTTPConnection("127.0.0.1", self.place.port, timeout=60)) as connection:
            connection.request(method, path, body, credentials | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()

    def client(self, user: str) -> local.Api:
        """A client of Airflow's API that stays logged in."""
        return self._clients.setdefault(user, local.Api(self.place, user))

    @property
    def api(self) -> local.Api:
        return self.client(local.USER)

    def log(self, service: str) -> str:
        """What a service has said so far."""
        return (self.place.logs / f"{service}.log").read_text(errors="replace")

    @property
    def home(self) -> Path:
        """The folder of Rowledger in the containers."""
        return Path(self.variables["ROWLEDGER_HOME"])

    def objects(self) -> Any:
        """A client of the server of the object storage, which lets in whoever has a key."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.variables["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="tester", aws_secret_access_key="tester",
        )  # fmt: skip

    def end_object_storage(self) -> None:
        """As if its machine were gone."""
        self._objects.kill()
        self._objects.wait()

    def add_user(self, name: str, role: str) -> None:
        """A user with a role of the FAB auth manager."""
        known = json.loads(self.place.passwords.read_text())
        self.place.passwords.write_text(json.dumps({name: f"password of {name}"} | known))
        login = {"username": name, "password": self.place.password_of(name)}
        person = {"first_name": name, "last_name": name, "email": _EMAIL.format(name=name)}
        self.api.request("POST", "/auth/fab/v1/users", {**login, **person, "roles": [{"name": role}]})

    def run(self, command: list[str]) -> str:
        """Run a command of a container to its end; returns what it prints."""
        done = subprocess.run(command, env=self._whole(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def _whole(self) -> dict[str, str]:
        whole = local.environment(self.place, self.variables)
        return whole | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), whole["PATH"]])}


def command(service: str) -> list[str]:
    """What the container of a service runs, as compose hands it on."""
    return [part.replace("$$", "$") for part in COMPOSE["services"][service]["command"]]


@contextlib.contextmanager
def started(server: Any, folder: Path) -> Iterator[Composed]:
    """All services that there are, with two workers, in databases of the server."""
    redis_server = shutil.which("redis-server")
    if redis_server is None:
        pytest.fail(INSTALL_REDIS, pytrace=False)
    place = local.Place(folder / "airflow", folder / "logs", server.get_uri("airflow"), local.free_port())
    place.home.mkdir(parents=True)
    secrets = folder / "secrets"
    secret_files.make(secrets)
    for statement in (secrets / "roles.sql").read_text().splitlines():
        execute(server.get_uri("postgres"), statement)
    redis, objects = local.free_port(), local.free_port()
    addresses = {
        "/run/rowledger": str(secrets),
        "@postgres/": "@/",
        "@redis:6379": f"@127.0.0.1:{redis}",
        "http://objects:8333": f"http://127.0.0.1:{objects}",
        "http://api-server:8080": place.url,
    }
    broker = secrets / "broker_url"
    broker.chmod(0o600)
    broker.write_text(_replaced(broker.read_text(), addresses))
    variables = _environment(addresses) | {
        "PGHOST": parse_dsn(server.get_uri("airflow"))["host"],
        "ROWLEDGER_HOME": str(folder / "home"),
        "ROWLEDGER_TEMPLATES": str(local.ROOT / "include" / "templates"),
        "ROWLEDGER_PART_BYTES": "100000",  # what is huge here
        "ROWLEDGER_FEEDS": str(shutil.copytree(local.ROOT / "include" / "feeds", folder / "feeds")),
    }
    words = [_replaced(word, addresses) for word in command("redis")[1:]]
    redis_command = [redis_server, *words, "--port", str(redis), "--bind", "127.0.0.1", "--dir", str(folder)]
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(objects)]
    with (
        _process(redis_command, folder / "redis.log"),
        _process(moto, folder / "objects.log") as objects_server,
    ):
        composed = Composed(place, variables, server.get_uri("airflow"), objects_server)
        _tell_password(place, secrets)
        local.migrated(place).touch()  # by init
        composed.run([_replaced(word, addresses) for word in command("init")])
        with local.running(place, variables, _commands()):
            try:
                yield composed
            finally:
                if composed._opened:
                    composed._opened.close()


def _commands() -> dict[str, list[str]]:
    """The components of Airflow and what comes after `airflow`; workers of one machine need names."""
    services = [name for name in local.COMPONENTS if name in COMPOSE["services"]]
    parts = {name: command(name)[1:] for name in services}
    worker = command("worker")[1:]
    named = {name: [*worker, "--celery-hostname", f"{name}@%h", "--skip-serve-logs"] for name in WORKERS}
    return parts | named


def _environment(addresses: dict[str, str]) -> dict[str, str]:
    """What is in the environment of every container of Airflow; all have the same."""
    given = COMPOSE["x-airflow"]["environment"]
    return {name: _replaced(_interpolated(value), addresses) for name, value in given.items()}


def _interpolated(value: str) -> str:
    """${NAME:-default} as compose reads it."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: TASKS.get(found[1], found[2]), value)


def _replaced(text: str, addresses: dict[str, str]) -> str:
    for container, here in addresses.items():
        text = text.replace(container, here)
    return text


def _tell_password(place: local.Place, secrets: Path) -> None:
    """The password of the user that init makes, where the client of the API looks for it."""
    place.passwords.touch(mode=0o600)
    place.passwords.write_text(json.dumps({local.USER: (secrets / "admin_password").read_text()}))


@contextlib.contextmanager
def _process(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
