"""Feeds whose files are in object storage or behind SFTP: looked at by what the sensor runs, through real servers.

The servers are moto's for S3 and asyncssh's for SFTP; Airflow's connection stands in the environment. Each look is a
process of its own, as a task is; see tests/looking.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import asyncssh
import boto3
import looking
import pytest
from looking import KILLED, Gate, Lookers

from rowledger import batches, feeds, loading
from rowledger.airflow import local
from rowledger.db import Connection, rows, transaction
from rowledger.feeds import arrivals
from rowledger.model import Batch
from rowledger.settings import Settings

HEADER = "Customer number,Email,Last name,Country\n"
LOGIN = {"login": "rowledger", "password": "a password"}


def contacts(prefix: str) -> bytes:
    return (HEADER + "".join(f"{prefix}{n},{prefix}{n}@example.com,N,DE\n" for n in range(3))).encode()


class Endpoint(Protocol):
    """A place on a server: what its sender sees, and how Airflow gets there."""

    place: str

    def connection(self, **changes: Any) -> dict[str, Any]: ...
    def put(self, name: str, content: bytes) -> None: ...
    def files(self) -> dict[str, bytes]: ...
    def put_odd(self) -> list[str]:
        """Put what is named like files and is none; what is said of it."""
        ...


@dataclass
class Bucket:
    """A folder of a bucket of its own in moto's server."""

    client: Any
    port: int
    name: str
    place: str = field(init=False)

    def __post_init__(self) -> None:
        self.client.create_bucket(Bucket=self.name)
        self.place = f"s3://partner@{self.name}/in"

    def connection(self, **changes: Any) -> dict[str, Any]:
        endpoint = f"http://127.0.0.1:{changes.get('port', self.port)}"
        extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        return {"conn_type": "aws", "login": "a key", "password": "a secret key", "extra": extra}

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"in/{name}", Body=content)

    def files(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        keys = [one["Key"] for one in listed]
        return {
            key.removeprefix("in/"): self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
            for key in keys
        }

    def put_odd(self) -> list[str]:
        self.client.put_object(Bucket=self.name, Key="in/")  # as consoles make a folder
        self.client.put_object(Bucket=self.name, Key="in/odd.csv/")
        return ['"odd.csv" is a folder and is left alone.']


@dataclass
class Served:
    """A folder of an SFTP server."""

    port: int
    host_key: str
    folder: Path
    place: str = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.place = f"sftp://partner@{self.folder}"

    def connection(self, **changes: Any) -> dict[str, Any]:
        extra = {"host_key": self.host_key}
        return {
            "conn_type": "sftp",
            "host": "127.0.0.1",
            "port": self.port,
            **LOGIN,
            "extra": extra,
        } | changes

    def put(self, name: str, content: bytes) -> None:
        (self.folder / f".{name}").write_bytes(content)
        (self.folder / f".{name}").rename(self.folder / name)

    def files(self) -> dict[str, bytes]:
        found = [path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}

    def put_odd(self) -> list[str]:
        (self.folder / "odd.csv").mkdir()
        (self.folder / "link.csv").symlink_to("/etc/passwd")
        return ['"link.csv" is a link and is left alone.', '"odd.csv" is a folder and is left alone.']


@pytest.fixture(scope="module")
def lookers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lookers]:
    with looking.started(tmp_path_factory.mktemp("lookers")) as started:
        yield started


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of moto's server."""
    port = local.free_port()
    log = tmp_path_factory.mktemp("objects") / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        try:
            yield port
        finally:
            process.terminate()


class PasswordOrKey(asyncssh.SSHServer):
    """Lets one login in."""

    key: asyncssh.SSHKey

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return {"login": username, "password": password} == LOGIN

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == LOGIN["login"] and key == self.key.convert_to_public()


class Sftp(NamedTuple):
    """Where an SFTP server is, and how it is known."""

    port: int
    host_key: str


class Files(asyncssh.SFTPServer):
    """Refuses secret files, and loses the connection at some."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if b"secret" in path:
            raise asyncssh.SFTPPermissionDenied("for others")
        if b"cut" in path:
            self.channel.get_connection().abort()
        return super().open(path, pflags, attrs)


@pytest.fixture(scope="module")
def sftp() -> Iterator[Sftp]:
    """An SFTP server, in a thread."""
    PasswordOrKey.key = asyncssh.generate_private_key("ssh-ed25519")
    host = asyncssh.generate_private_key("ssh-ed25519")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def done(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def begin() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=PasswordOrKey, server_host_keys=[host], sftp_factory=Files
        )

    async def end(server: asyncssh.SSHAcceptor) -> None:
        server.close()
        await server.wait_closed()

    server = done(begin())
    yield Sftp(server.get_port(), host.export_public_key().decode().strip())
    done(end(server))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    loop.close()


@pytest.fixture
def bucket(objects: int, tmp_path: Path) -> Bucket:
    client = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{objects}", region_name="us-east-1",
        aws_access_key_id="a key", aws_secret_access_key="a secret key",
    )  # fmt: skip
    return Bucket(client, objects, f"b{abs(hash(tmp_path))}")


@pytest.fixture
def served(sftp: Sftp, tmp_path: Path) -> Served:
    return Served(sftp.port, sftp.host_key, tmp_path / "in")


@pytest.fixture(params=["s3", "sftp"])
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    found: Endpoint = request.getfixturevalue({"s3": "bucket", "sftp": "served"}[request.param])
    return found


@dataclass
class House:
    """Rowledger with feeds, and who looks at them."""

    connection: Connection
    settings: Settings
    lookers: Lookers
    environment: dict[str, str] = field(default_factory=dict)

    def feed(self, endpoint: Endpoint, name: str = "partner", **changes: Any) -> None:
        said = {
            "title": "A partner", "place": endpoint.place, "pattern": "*.csv", "kind": "contact", "domain": "DEMO",
            "template": "contacts", "settled_after": "0s",
        } | changes  # fmt: skip
        self.settings.feeds.mkdir(parents=True, exist_ok=True)
        (self.settings.feeds / f"{name}.yml").write_text(json.dumps(said), encoding="utf-8")
        self.connect(endpoint.connection())

    def connect(self, connection: dict[str, Any]) -> None:
        self.environment["AIRFLOW_CONN_PARTNER"] = json.dumps(connection)

    @property
    def asked(self) -> dict[str, Any]:
        places = {
            name: getattr(self.settings, name) for name in ("home", "templates", "feeds", "database_url")
        }
        return places | {"environment": self.environment}

    def look(self, times: int = 1) -> None:
        assert self.lookers.look(**self.asked, times=times) == [0] * times

    def killed(self, at: str) -> None:
        assert self.lookers.look(**self.asked, at=at) == [KILLED]

    @contextlib.contextmanager
    def stopped(self, at: str, folder: Path) -> Iterator[None]:
        """Something happens while a look is at a point of its way."""
        gate = Gate(folder)
        self.lookers.begin(**self.asked, at=at, gate=folder)
        gate.wait()
        yield
        gate.go_on()
        assert self.lookers.ended() == [0]

    def batches(self) -> list[Batch]:
        return list(reversed(batches.listed(self.connection, limit=1000)))

    def contents(self) -> list[bytes]:
        """The files of the batches."""
        return [Path(batch.file_path).read_bytes() for batch in self.batches()]

    def trouble(self, feed: str = "partner") -> list[str]:
        said = arrivals.known(self.connection)[feed]["trouble"]
        return sorted(said.split("\n")) if said else []


@pytest.fixture
def house(connection: Connection, settings: Settings, lookers: Lookers) -> House:
    changed = {"feeds": settings.home / "feeds"}
    return House(connection, Settings(**{**settings.__dict__, **changed}), lookers)


def test_a_new_file_becomes_one_batch_of_its_bytes_and_is_moved_away(
    house: House, endpoint: Endpoint
) -> None:
    house.feed(endpoint)
    endpoint.put("may.csv", contacts("A"))
    house.look()
    (batch,) = house.batches()
    assert (batch.file_name, batch.uploaded_by, batch.status) == ("may.csv", "feed partner", "waiting")
    assert house.contents() == [contacts("A")]
    assert endpoint.files() == {"taken/may.csv": contacts("A")}
    house.look()
    assert len(house.batches()) == 1
    assert house.trouble() == []


@pytest.mark.parametrize(("then", "left"), [("mark", ["may.csv"]), ("delete", [])])
def test_a_taken_file_is_left_and_remembered_or_deleted_if_the_feed_says_so(
    house: House, endpoint: Endpoint, then: str, left: list[str]
) -> None:
    house.feed(endpoint, then=then)
    endpoint.put("may.csv", contacts("A"))
    house.look()
    assert list(endpoint.files()) == left
    house.look()  # at an empty place too
    assert house.trouble() == []
    endpoint.put("may.csv", contacts("B") + b"\n")  # the next month by the same name
    house.look()
    assert house.contents() == [contacts("A"), contacts("B") + b"\n"]


def test_a_file_that_is_still_being_written_waits_until_it_stays_as_it_is(
    house: House, endpoint: Endpoint
) -> None:
    house.feed(endpoint, settled_after="1h")
    endpoint.put("may.csv", contacts("A")[:-20])
    house.look()
    past(house)
    endpoint.put("may.csv", contacts("A"))
    house.look()
    house.look()
    assert house.batches() == []
    past(house)
    house.look()
    assert house.contents() == [contacts("A")]


def past(house: House) -> None:
    """What was seen, was seen an hour earlier."""
    with transaction(house.connection) as cursor:
        cursor.execute("UPDATE feed_seen SET seen_at = seen_at - interval '1 hour'")


def test_the_same_bytes_once_more_by_the_same_name_make_no_second_batch_and_do_not_stay(
    house: House, endpoint: Endpoint
) -> None:
    house.feed(endpoint)
    for _ in range(2):
        endpoint.put("may.csv", contacts("A"))
        house.look()
        assert "may.csv" not in endpoint.files()
        assert house.trouble() == []
        second = int(time.time())
        while int(time.time()) == second:  # what stores tell of time is in seconds
            time.sleep(0.01)
    (batch,) = house.batches()
    events = [(event["event"], event["detail"]) for event in batches.events(house.connection, batch.seqno)]
    assert events == [("uploaded", "may.csv"), ("sent again", "may.csv")]


@pytest.mark.parametrize("at", ["register", "take away"])
@pytest.mark.parametrize("then", ["move", "delete"])
def test_a_file_replaced_after_it_was_hashed_becomes_a_batch_of_its_own(
    house: House, endpoint: Endpoint, at: str, then: str, tmp_path: Path
) -> None:
    house.feed(endpoint, then=then)
    endpoint.put("may.csv", contacts("A"))
    with house.stopped(at, tmp_path):
        endpoint.put("may.csv", contacts("B") + b"\n")
    assert endpoint.files() == {"may.csv": contacts("B") + b"\n"}
    house.look()
    assert house.contents() == [contacts("A"), contacts("B") + b"\n"]
    assert endpoint.files() == ({"taken/may.csv": contacts("B") + b"\n"} if then == "move" else {})


def test_an_object_replaced_right_after_it_was_copied_is_not_removed(
    house: House, bucket: Bucket, tmp_path: Path
) -> None:
    house.feed(bucket)
    bucket.put("may.csv", contacts("A"))
    with house.stopped("remove the copied", tmp_path):
        bucket.put("may.csv", contacts("B"))
    assert bucket.files() == {"may.csv": contacts("B"), "taken/may.csv": contacts("A")}
    house.look()
    (_, second) = house.batches()
    assert house.contents() == [contacts("A"), contacts("B")]
    assert sorted(bucket.files()) == [f"taken/may.{second.seqno}.csv", "taken/may.csv"]


@pytest.mark.parametrize("at", ["register", "take away", "remove the copied"])
@pytest.mark.parametrize("then", ["move", "delete"])
def test_whoever_is_killed_on_the_way_the_next_look_ends_it_and_nothing_is_lost_or_there_twice(
    house: House, endpoint: Endpoint, at: str, then: str
) -> None:
    if isinstance(endpoint, Served) and (at, then) == ("remove the copied", "move"):
        at = "take away"  # nothing is copied there
    house.feed(endpoint, then=then)
    endpoint.put("may.csv", contacts("A"))
    house.killed(at)
    house.look()
    assert house.trouble() == []
    assert house.contents() == [contacts("A")]
    assert endpoint.files() == ({"taken/may.csv": contacts("A")} if then == "move" else {})
    with transaction(house.connection) as cursor:
        (taken,) = rows(cursor, "SELECT duplicate, handled_at IS NOT NULL AS handled FROM feed_file")
    assert taken == {"duplicate": False, "handled": True}
    house.look()
    assert len(house.batches()) == 1


def test_what_is_named_like_a_file_and_is_none_is_left_alone_with_a_warning(
    house: House, endpoint: Endpoint
) -> None:
    house.feed(endpoint)
    said = endpoint.put_odd()
    endpoint.put("may.csv", contacts("A"))
    house.look()
    assert house.trouble() == said
    assert house.contents() == [contacts("A")]


def test_names_are_taken_as_they_are(house: House, endpoint: Endpoint) -> None:
    """Brackets and stars are no patterns; what is taken twice keeps both."""
    house.feed(endpoint)
    names = ["May [1-9].csv", "May 2.csv", "Ü*?.csv"]
    for number, name in enumerate(names):
        endpoint.put(name, contacts(f"N{number}-"))
    house.look()
    endpoint.put("May [1-9].csv", contacts("O"))
    house.look()
    assert sorted(batch.file_name for batch in house.batches()) == sorted([*names, "May [1-9].csv"])
    last = house.batches()[-1].seqno
    assert sorted(endpoint.files()) == sorted(
        [*(f"taken/{name}" for name in names), f"taken/May [1-9].{last}.csv"]
    )


def test_an_sftp_name_that_is_no_text_is_taken_and_shown_escaped(house: House, served: Served) -> None:
    house.feed(served)
    served.put(os.fsdecode(b"r\xe9sultats.csv"), contacts("A"))
    house.look()
    assert [batch.file_name for batch in house.batches()] == ["r\\udce9sultats.csv"]
    assert list(served.files()) == [os.fsdecode(b"taken/r\xe9sultats.csv")]


def test_two_who_look_at_once_make_one_batch_of_each_file(house: House, endpoint: Endpoint) -> None:
    house.feed(endpoint)
    names = [f"{number}.csv" for number in range(5)]
    for name in names:
        endpoint.put(name, contacts(name))
    house.look(times=3)
    house.look()
    assert sorted(batch.file_name for batch in house.batches()) == names
    assert sorted(endpoint.files()) == [f"taken/{name}" for name in names]


def test_whether_a_file_is_missing_is_for_the_one_to_say_who_looks(house: House, served: Served) -> None:
    """Who comes second may find that none is there that the first one is just taking."""
    house.feed(served, expected={"every": "1d"})
    house.look()
    with transaction(house.connection) as cursor:
        cursor.execute("UPDATE feed SET since = since - interval '25 hours'")
    (feed,) = feeds.read_feeds(house.settings.feeds, loading.kinds())[0]
    with arrivals._alone(house.connection, feed) as ours:
        assert ours
        house.look()
        assert arrivals.known(house.connection)["partner"]["missing_since"] is None
    house.look()
    assert arrivals.known(house.connection)["partner"]["missing_since"]


def test_a_place_that_is_away_says_so_and_keeps_no_other_feed_from_being_looked_at(
    house: House, endpoint: Endpoint
) -> None:
    here = house.settings.home / "here"
    here.mkdir(parents=True)
    (here / "june.csv").write_bytes(contacts("J"))
    house.feed(endpoint, name="local", place="here")
    house.feed(endpoint, priority=1)
    endpoint.put("may.csv", contacts("A"))
    house.connect(endpoint.connection(port=local.free_port()))
    house.look()
    (said,) = house.trouble()
    assert said.startswith(f"{endpoint.place} cannot be reached")
    assert "127.0.0.1" not in said
    assert [batch.file_name for batch in house.batches()] == ["june.csv"]
    house.connect(endpoint.connection())
    house.look()
    assert [batch.file_name for batch in house.batches()] == ["june.csv", "may.csv"]
    assert house.trouble() == []


def test_a_connection_that_does_not_exist_is_not_replaced_by_another(
    house: House, endpoint: Endpoint
) -> None:
    house.feed(endpoint)
    house.environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "of the worker"}
    house.look()
    assert house.trouble() == [f"{endpoint.place} names an Airflow connection that does not exist."]


def test_a_bucket_or_a_folder_that_does_not_exist_is_told(house: House, endpoint: Endpoint) -> None:
    house.feed(endpoint, place=endpoint.place[:-3] + "-none/in")
    house.look()
    assert house.trouble() == [f"{endpoint.place[:-3]}-none/in is not there."]


def test_an_sftp_login_that_is_refused_is_told(house: House, served: Served) -> None:
    house.feed(served)
    house.connect(served.connection(password="another"))
    house.look()
    assert house.trouble() == [f"{served.place} refuses the login of its connection."]


def test_an_sftp_server_is_known_by_its_host_key(house: House, served: Served) -> None:
    """Of two that are not: one has the wrong key, of the other none is known."""
    served.put("may.csv", contacts("A"))
    house.feed(served)
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    for extra in ({"host_key": other}, {}):
        house.connect(served.connection(extra=extra))
        house.look()
        (said,) = house.trouble()
        assert said.startswith(f"{served.place} is served by somebody whose host key is not the one expected")
    assert house.batches() == []
    house.connect(served.connection(extra={"no_host_key_check": True}))
    house.look()
    assert (len(house.batches()), house.trouble()) == (1, [])


def test_an_sftp_login_by_a_key_that_stands_in_the_connection(house: House, served: Served) -> None:
    house.feed(served)
    for number, passphrase in enumerate((None, "a passphrase")):
        served.put(f"{number}.csv", contacts(f"P{number}-"))
        key = PasswordOrKey.key.export_private_key("pkcs8-pem", passphrase).decode()
        extra = {"host_key": served.host_key, "private_key": key, "private_key_passphrase": passphrase}
        house.connect(served.connection(password=None, extra=extra))
        house.look()
        assert house.trouble() == []
    assert house.contents() == [contacts("P0-"), contacts("P1-")]


def test_an_sftp_file_that_may_not_be_read_keeps_no_other_from_being_taken(
    house: House, served: Served
) -> None:
    house.feed(served)
    for name in ("a secret.csv", "may.csv"):
        served.put(name, contacts(name))
    house.look()
    refused = f'"a secret.csv" in {served.place} refuses that to the login of its connection (SFTPPermissionDenied).'
    assert house.trouble() == [refused]
    assert house.contents() == [contacts("may.csv")]


def test_files_wait_when_the_connection_is_lost_and_are_not_tried_one_by_one(
    house: House, served: Served
) -> None:
    house.feed(served)
    for name in ("1.csv", "2 cut.csv", "3 cut.csv", "4.csv"):
        served.put(name, contacts(name))
    house.look()
    (said,) = house.trouble()
    assert said.startswith(f"{served.place} cannot be reached or used just now")
    assert [batch.file_name for batch in house.batches()] == ["1.csv"]
    assert sorted(served.files()) == ["2 cut.csv", "3 cut.csv", "4.csv", "taken/1.csv"]
