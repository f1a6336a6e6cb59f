"""A whole Airflow on this machine, for the demo and the tests: its environment, its processes, its REST API.

A component that ends is started again, as a container engine would. Every process is marked in its environment, so that all of them can be found and ended, whatever has become of their
parents. Their output goes to files; nothing outside ``home`` and ``logs`` is touched.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
from psycopg2.extensions import parse_dsn

from rowledger.airflow.secret_files import keep_fernet_key
from rowledger.errors import SetupError, TryAgain

ROOT = Path(__file__).resolve().parents[3]
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
COMMANDS = {name: (name,) for name in COMPONENTS}  # what comes after `airflow`
MARK = "ROWLEDGER_LOCAL_AIRFLOW"
USER = "admin"
USERS = {USER: "admin", "op": "op", "user": "user", "viewer": "viewer"}  # names and their roles
START_SECONDS = 120
LOOK_SECONDS = 0.5  # how often it is looked after the components
BREATH_SECONDS = 5  # what ends at once is not started again at once
STOP_SECONDS = 8  # a task that needs longer is killed; the next start goes on where it was
# What makes Airflow notice within seconds that a part of it is lost, and outlast the restart of another part.
# docker-compose.yml has the same, and executor and places of its own.
RECOVERY = {
    # A scheduler without a heartbeat for so long is lost; another one starts its tasks anew. Not less: each beat writes
    # the time of the one before, so that a scheduler that needs ten seconds to expand a large run would count itself lost.
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    # A task without a heartbeat for so long is lost. Longer than the API server needs to start again.
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    # A minute for each question to the API server, asked every few seconds, instead of ever more rarely.
    "WORKERS__EXECUTION_API_RETRIES": "20",
    "WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    # What a supervisor sleeps when it overlooks the end of its task.
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}
EXECUTOR = {
    # As many as run at once. The LocalExecutor counts no running tasks; without this it queues up all that could run
    # some day, first in, first out, whatever their priority, and with tokens that expire meanwhile.
    "CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "4",
    "CORE__PARALLELISM": "4",
    "CORE__EXECUTOR": "rowledger.airflow.executor.LocalExecutor",
}
# What feeds, notices and metrics are told by whoever starts it.
OF_CALLER = ("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW__METRICS__")
log = logging.getLogger("rowledger.airflow")


class ApiError(SetupError):
    """Airflow's REST API refused a call."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Place:
    """Where a local Airflow lives: its home, the folder of its logs, its metadata database, and the port it serves."""

    home: Path
    logs: Path
    metadata_url: str
    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def passwords(self) -> Path:
        return self.home / "passwords.json"

    @property
    def password(self) -> str:
        return self.password_of(USER)

    def password_of(self, user: str) -> str:
        """The password of one of ``USERS``."""
        return str(json.loads(self.passwords.read_text())[user])


class Api:
    """A client of the REST API, logged in as one of ``USERS``."""

    def __init__(self, place: Place, user: str = USER) -> None:
        self._place, self._user = place, user
        self._token: str | None = None

    def token(self) -> str:
        """The token of the user. Raises ApiError or TryAgain."""
        if self._token is None:
            login = {"username": self._user, "password": self._place.password_of(self._user)}
            self._token = str(self._request("POST", "/auth/token", login)["access_token"])
        return self._token

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to ``/api/v2`` + path. Raises ApiError if it is refused, TryAgain if nobody answers."""
        return self.request(method, f"/api/v2{path}", body)

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a path outside of ``/api/v2``. Raises as ``call`` does."""
        self.token()
        return self._request(method, path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = http.client.HTTPConnection("127.0.0.1", self._place.port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise TryAgain(f"Airflow does not answer at {self._place.url} ({error}).") from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(
                answer.status, f"Airflow answered {answer.status} to {method} {path}: {text[:300]}"
            )
        return json.loads(text) if text else None


def free_port(wanted: int = 0) -> int:
    """The wanted port if it is free, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return int(listener.getsockname()[1])
    raise SetupError("This machine has no free port.")


def environment(place: Place, rowledger: Mapping[str, str]) -> dict[str, str]:
    """The environment of every process: the caller's, without its Airflow, with ours and ``rowledger``'s settings."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(OF_CALLER) or not name.startswith(("AIRFLOW", "PYTHONDONTWRITEBYTECODE"))
    }
    python_path = [str(ROOT / "config"), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]
    by_command = {
        name.removesuffix("_CMD") for name in rowledger if name.endswith("_CMD")
    }  # a value would win
    configuration = {f"AIRFLOW__{name}": value for name, value in _configuration(place).items()}
    return (
        inherited
        | {
            MARK: str(place.home),
            "SPT_NOENV": "1",  # Airflow retitles its processes; this keeps the mark readable
            "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
            "PYTHONWARNINGS": "ignore",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(place.home),
        }
        | {name: value for name, value in configuration.items() if name not in by_command}
        | dict(rowledger)
    )


def _configuration(place: Place) -> dict[str, str]:
    return (
        RECOVERY
        | EXECUTOR
        | {
            "CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__FERNET_KEY": keep_fernet_key(place.home, mode=0o600),
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{place.port}/execution/",
            "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(place.passwords),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(place.port),
            "API__BASE_URL": place.url,
            "API__SECRET_KEY": secrets.token_urlsafe(32),
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "DATABASE__SQL_ALCHEMY_CONN": _for_sqlalchemy(place.metadata_url),
            "DATABASE__SQL_ALCHEMY_CONN_ASYNC": "",  # needs a second driver and serves nothing that is used here
            "LOGGING__BASE_LOG_FOLDER": str(place.logs / "tasks"),
            "LOGGING__NAMESPACE_LEVELS": "airflow.task.operators=WARNING",  # else "Returned value was: None" comes last
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
    )


def airflow_connection(url: str) -> str:
    """The value of AIRFLOW_CONN_ROWLEDGER that leads to this database, whatever characters its address has."""
    parts = parse_dsn(url)
    names = {"user": "login", "dbname": "schema", "password": "password", "host": "host", "port": "port"}
    known = {names[name]: part for name, part in parts.items() if name in names}
    others = {name: part for name, part in parts.items() if name not in names}
    return json.dumps({"conn_type": "postgres", **known, "extra": others})


def _for_sqlalchemy(url: str) -> str:
    query = urlencode({name: part for name, part in parse_dsn(url).items() if name != "dbname"})
    return f"postgresql+psycopg2:///{parse_dsn(url)['dbname']}?{query}"


@contextmanager
def running(
    place: Place, rowledger: Mapping[str, str], commands: Mapping[str, Sequence[str]] = COMMANDS
) -> Iterator[Api]:
    """Start every component, wait until all are well, keep them running, and end them all at the end. Raises SetupError.

    ``rowledger`` are the settings of the tasks as environment variables, above all AIRFLOW_CONN_ROWLEDGER, and what
    Airflow shall be told differently; ``commands`` the components by their names.
    """
    place.home.mkdir(parents=True, exist_ok=True)
    place.logs.mkdir(parents=True, exist_ok=True)
    end(place.home)  # what a killed predecessor may have left
    _keep_passwords(place)
    variables = environment(place, rowledger)
    components = [
        _Component(name, partial(_start, place, variables, name, *command))
        for name, command in commands.items()
    ]
    leaving = threading.Event()
    keeper = threading.Thread(target=_keep_running, args=(components, leaving), name="keeper of Airflow")
    try:
        _migrate(place, variables)
        for component in components:
            component.start()
        api = Api(place)
        _wait_until_well(place, api, components)
        keeper.start()
        yield api
    finally:
        leaving.set()
        if keeper.is_alive():
            keeper.join()
        processes = [component.process for component in components if component.process]
        _stop(processes)
        end(place.home)
        for process in processes:
            process.wait()


@dataclass
class _Component:
    """A process of Airflow that is to run, whatever happens to it."""

    name: str
    launch: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0

    def start(self) -> None:
        self.process, self.started = self.launch(), time.monotonic()

    @property
    def ended(self) -> int | None:
        """The exit code, once it has one."""
        return self.process.poll() if self.process else None


def _keep_running(components: list[_Component], leaving: threading.Event) -> None:
    """Start again what ends by itself, without what it left behind, as a container would."""
    while not leaving.wait(LOOK_SECONDS):
        for component in components:
            if component.ended is None or time.monotonic() - component.started < BREATH_SECONDS:
                continue
            assert component.process
            log.warning("Airflow's %s ended (%s) and is started again.", component.name, component.ended)
            _end_session(component.process.pid)
            component.start()


def _end_session(leader: int) -> None:
    """Kill what a component has started: tasks have process groups, but no sessions of their own."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader:
                process.kill()


def _keep_passwords(place: Place) -> None:
    """One for every user; those that are there stay."""
    if not place.passwords.exists():
        place.passwords.touch(mode=0o600)
        place.passwords.write_text("{}\n")
    kept = json.loads(place.passwords.read_text())
    fresh = {user: secrets.token_urlsafe(9) for user in USERS}
    place.passwords.write_text(json.dumps(fresh | kept) + "\n")


def _migrate(place: Place, variables: dict[str, str]) -> None:
    """Bring Airflow's own tables up to date; done once for each version of Airflow, because it takes seconds."""
    done = migrated(place)
    if done.exists():
        return
    process = _start(place, variables, "db", "db", "migrate")
    if process.wait():
        raise SetupError(f"Airflow could not prepare its database; see {place.logs / 'db.log'}.")
    done.touch()


def migrated(place: Place) -> Path:
    """The file that says that the tables of the database are those of this version of Airflow."""
    from importlib.metadata import version

    return place.home / f"migrated-{version('apache-airflow-core')}"


def _start(place: Place, variables: dict[str, str], name: str, *command: str) -> subprocess.Popen[bytes]:
    with (place.logs / f"{name}.log").open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and words
            [sys.executable, "-m", "airflow", *command],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for the caller, who ends them in order
        )


def _wait_until_well(place: Place, api: Api, components: list[_Component]) -> None:
    deadline = time.monotonic() + START_SECONDS
    health: dict[str, Any] = {}
    while time.monotonic() < deadline:
        for component in components:
            if component.ended is not None:
                raise SetupError(f"Airflow's {component.name} ended; see {place.logs / component.name}.log.")
        with suppress(TryAgain):
            health = api.call("GET", "/monitor/health")
            if all(part["status"] == "healthy" for part in health.values()):
                return
        time.sleep(0.3)
    ill = ", ".join(name for name, part in health.items() if part["status"] != "healthy") or "the API server"
    raise SetupError(f"Airflow did not start within {START_SECONDS} s ({ill}); see {place.logs}.")


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))


def end(home: Path) -> None:
    """Kill every process that carries the mark of this home."""
    marked = [process for process in psutil.process_iter() if _mark(process) == str(home)]
    for process in marked:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(marked, timeout=5)


def _mark(process: psutil.Process) -> str | None:
    try:
        mark: str | None = process.environ().get(MARK)
    except (psutil.Error, OSError):  # somebody else's, or gone
        return None
    return mark
