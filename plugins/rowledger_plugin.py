"""What Airflow loads of Rowledger. Airflow may execute this file more than once: nothing happens here."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from rowledger.airflow import desk


class RowledgerPlugin(AirflowPlugin):
    name = "rowledger"
    fastapi_apps = [{"app": desk.app, "url_prefix": desk.PREFIX, "name": "Rowledger imports"}]  # noqa: RUF012 - Airflow's way
    external_views = [  # noqa: RUF012
        {
            "name": "Imports",
            "href": "imports/",
            "url_route": "imports",
            "destination": "nav",
            "nav_top_level": True,
        }
    ]
