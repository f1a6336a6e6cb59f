"""The secrets of docker-compose.yml: made once, at random, into a folder that only its containers see.

    python -m rowledger.airflow.secret_files /run/rowledger

A file that is there stays, so that secrets of one's own are laid beside the others before the first start; only who may
read it is set right: the user of the image, and through its group the database server's.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path

DATABASES = ("airflow", "rowledger")  # each is owned by a role of its own name
ACCESS_KEY = "rowledger"
PLAIN = r"[A-Za-z0-9_.~-]+"


def make(folder: Path) -> None:
    """Write every secret file that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    _let_in(folder, 0o750)
    for name in ("jwt_secret", "api_secret_key", "admin_password", "postgres_password"):
        _secret(folder, name)
    keep_fernet_key(folder)
    roles = {name: _plain_secret(folder, f"{name}_database_password") for name in DATABASES}
    _keep(folder, "roles.sql", "".join(_role(name, password) for name, password in roles.items()))
    # libpq reads this one only if nobody else may.
    passwords = "".join(f"*:*:*:{name}:{password}\n" for name, password in roles.items())
    _keep(folder, "pgpass", passwords, mode=0o600)
    redis = _plain_secret(folder, "redis_password")
    # Nothing is lost with the queue: what was given out and does not begin is given out again.
    _keep(folder, "redis.conf", f'requirepass {redis}\nsave ""\n')
    _keep(folder, "broker_url", f"redis://:{redis}@redis:6379/0")
    _keep_object_storage(folder, _plain_secret(folder, "object_storage_key"))


def keep_fernet_key(folder: Path, mode: int = 0o440) -> str:
    """The key of the connections in Airflow's metadata database, made if it is not there; as long as that it has to stay."""
    fresh = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return _keep(folder, "fernet_key", fresh, mode)


def _role(name: str, password: str) -> str:
    return f"CREATE ROLE {name} LOGIN PASSWORD '{password}';\nCREATE DATABASE {name} OWNER {name} ENCODING 'UTF8' TEMPLATE template0;\n"


def _keep_object_storage(folder: Path, key: str) -> None:
    """The two sides of one access key: boto's file of credentials and the server's file of identities."""
    credentials = f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {key}\n"
    identity = {
        "name": ACCESS_KEY,
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": key}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    _keep(folder, "aws_credentials", credentials)
    _keep(folder, "object_storage.json", json.dumps({"identities": [identity]}))


def _plain_secret(folder: Path, name: str) -> str:
    """One that also stands in SQL, an address or a configuration file, which would read other characters differently."""
    secret = _secret(folder, name)
    if not re.fullmatch(PLAIN, secret):
        sys.exit(f"{folder / name} has characters that do not fit here: letters, digits and _ . ~ - do.")
    return secret


def _secret(folder: Path, name: str) -> str:
    return _keep(folder, name, secrets.token_hex(32))


def _keep(folder: Path, name: str, text: str, mode: int = 0o440) -> str:
    """The text of the file, which is written if it is not there: whole or not at all."""
    path = folder / name
    if not path.exists():
        fresh = folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(path)
    _let_in(path, mode)
    return path.read_text().strip()


def _let_in(path: Path, mode: int) -> None:
    """The group of this process, and whom the mode says."""
    with suppress(PermissionError):  # it is somebody else's, who has to see to it
        os.chown(path, -1, os.getgid())
        path.chmod(mode)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
