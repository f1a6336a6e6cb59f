"""Places of feeds that Airflow's ObjectStoragePath knows, by an Airflow connection: object storage, SFTP.

A place is opened anew for every look, so that none speaks through a connection that has died, and with time limits, so
that a machine that is away keeps no other feed waiting for long. Whoever serves SFTP is known by his host key, as with
Airflow's own hooks: sshfs, left alone, trusts anybody.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from rowledger.errors import PlaceAway
from rowledger.feeds import Feed
from rowledger.feeds.stores import SSH, Store

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger("rowledger.airflow")
CONNECT_SECONDS = SILENT_SECONDS = 20
S3_TIMES = {  # s3fs tries everything five times, whatever botocore does
    "connect_timeout": CONNECT_SECONDS / 2,
    "read_timeout": SILENT_SECONDS,
    "retries": {"total_max_attempts": 1},
}


def store(feed: Feed) -> Store:
    """The place of a feed. Raises PlaceAway."""
    try:
        return _opened(feed.place)
    except PlaceAway:
        raise
    except Exception as error:  # noqa: BLE001 - every provider has errors of its own, a missing one too
        log.warning("%s: %s: %s", feed.place, type(error).__name__, error)
        raise PlaceAway(f"{feed.place} {_words(error)}") from None


def _opened(place: str) -> Store:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import attach, get_fs, has_fs

    scheme, connection_id = _read(place)
    if not has_fs(scheme):
        raise PlaceAway(f"{place} needs a provider of Airflow that is not installed.")
    # Before ObjectStoragePath, which would connect by itself.
    attach(scheme, connection_id).fs = get_fs(scheme, connection_id, _options(scheme, connection_id))
    path = ObjectStoragePath(place)
    return Store(path.fs, path.path, place, scheme)


def _read(place: str) -> tuple[str, str | None]:
    """The scheme and the id of the connection of a place."""
    scheme, _, rest = place.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    return scheme, user if at and user else None


def _options(scheme: str, connection_id: str | None) -> dict[str, Any] | None:
    """What is said to the file system beyond what Airflow says; also finds out whether there is that connection."""
    from airflow.sdk import BaseHook

    if connection_id is None:
        return None
    connection = BaseHook.get_connection(
        connection_id
    )  # an unknown one is not replaced by what the machine may do
    if scheme == "s3":
        said: dict[str, Any] = connection.extra_dejson.get("config_kwargs", {})
        return S3_TIMES | said
    return _ssh_options(connection) if scheme in SSH else None


def _ssh_options(connection: Connection) -> dict[str, Any]:
    """By the extras that Airflow's own hooks of SSH read."""
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    said = connection.extra_dejson
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "login_timeout": CONNECT_SECONDS,
        "keepalive_interval": SILENT_SECONDS / 2,
        "sftp_client_kwargs": {"path_errors": "surrogateescape"},
        "skip_instance_cache": True,
    }
    if key := said.get("host_key"):
        words = key.split()
        parts = words[:2] if len(words) > 1 else ["ssh-rsa", *words]
        options["known_hosts"] = f"* {' '.join(parts)}".encode()
    elif str(said.get("no_host_key_check", "")).lower() != "true":
        options["known_hosts"] = said.get("known_hosts", ())  # those of whom the worker runs as
    if private := said.get("private_key"):
        options["client_keys"] = [private.encode()]  # a text would be taken for the name of a file
    return options


def _words(error: Exception) -> str:
    """What is wrong with a place, after its name."""
    why = type(error).__name__
    return {
        "AirflowNotFoundException": "names an Airflow connection that does not exist.",
        "HostKeyNotVerifiable": "is served by somebody whose host key is not the one expected; if it is the right one, "
        "put it as host_key into the extras of the connection.",
        "ImportError": "needs a library that is not installed; the log says which.",
        "KeyImportError": "has a connection with a key that cannot be read.",
        "PermissionError": "refuses the login of its connection.",
    }.get(why, f"cannot be reached ({why}).")
