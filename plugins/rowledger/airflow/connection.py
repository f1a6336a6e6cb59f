"""Airflow's connection ``rowledger``, as an address for libpq."""

from __future__ import annotations

from typing import Any, Protocol

import psycopg2.extensions

CONNECTION_ID = "rowledger"


class Parts(Protocol):
    """What Airflow's own and its SDK's connections have."""

    host: str | None
    port: int | None
    login: str | None
    password: str | None
    schema: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """What stands in no field of its own."""
        ...


def connection_string(connection: Parts) -> str:
    """What libpq needs, from the parts: Airflow's own URI writes a blank as +, which libpq takes for a plus."""
    parts = {
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
    }
    known = {name: part for name, part in (parts | connection.extra_dejson).items() if part}
    return str(psycopg2.extensions.make_dsn(**known))
