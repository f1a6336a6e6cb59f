"""What Airflow loads of Rowledger. Airflow may execute this file more than once: nothing happens here."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class RowledgerPlugin(AirflowPlugin):
    name = "rowledger"
