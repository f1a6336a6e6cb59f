"""What Airflow loads of Rowledger. Airflow may execute this file more than once: nothing happens here."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from rowledger.airflow import desk
from rowledger.airflow.batch_task import BatchLink

# Airflow fills in what its page is about, and leaves {MAP_INDEX} as it is on a task that is not mapped. The frames of
# runs and tasks let no script run and load nothing.
OF_RUN = "imports/of-run?dag_id={DAG_ID}&run_id={RUN_ID}"


class RowledgerPlugin(AirflowPlugin):
    name = "rowledger"
    fastapi_apps = [{"app": desk.app, "url_prefix": desk.PREFIX, "name": "Rowledger imports"}]  # noqa: RUF012 - Airflow's way
    external_views = [  # noqa: RUF012
        {
            "name": "Imports",
            "href": "imports/",
            "url_route": desk.ROUTE,
            "destination": "nav",
            "nav_top_level": True,
        },
        {
            "name": "Import records",
            "href": OF_RUN,
            "url_route": "import-records",
            "destination": "dag_run",
        },
        {
            "name": "Import records",
            "href": f"{OF_RUN}&map_index={{MAP_INDEX}}",
            "url_route": "import-records-of-task",
            "destination": "task_instance",
        },
    ]
    operator_extra_links = [BatchLink()]  # noqa: RUF012
