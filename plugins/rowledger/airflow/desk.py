"""The import desk behind Airflow's access control, to be mounted into its API server.

Every process of Airflow loads plugins; only the API server gets requests. So the app is made at its first one.
"""

from __future__ import annotations

import contextlib
import functools
import json
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from rowledger.db import Connection
    from rowledger.desk.access import Right, User
    from rowledger.desk.context import Schedule
    from rowledger.settings import Settings

PREFIX = "/imports"
ROUTE = "imports"  # of the entry of the navigation, in which the desk stands
Method = Literal["GET", "POST", "PUT"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The desk, as Airflow mounts it."""
    await _made()(scope, receive, send)


@functools.cache
def _made() -> FastAPI:
    from rowledger import suites
    from rowledger.airflow.storage import settings as from_environment
    from rowledger.desk import create_app
    from rowledger.judges import Judges

    settings = from_environment()
    return create_app(
        functools.partial(_connect, settings), Guard(), settings=settings, suites=suites, engine=Engine(),
        judge=Judges(),
    )  # fmt: skip


def _connect(settings: Settings) -> Connection:
    """Connect by Airflow's connection, else by ``ROWLEDGER_DATABASE_URL``. Raises SetupError or TryAgain."""
    from airflow.models import Connection as AirflowConnection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from rowledger import db
    from rowledger.airflow.connection import CONNECTION_ID, connection_string
    from rowledger.errors import SetupError

    try:
        address = connection_string(AirflowConnection.get_connection_from_secrets(CONNECTION_ID))
    except AirflowNotFoundException:
        if not settings.database_url:
            raise SetupError(
                f'There is neither an Airflow connection "{CONNECTION_ID}" nor a ROWLEDGER_DATABASE_URL.'
            ) from None
        address = settings.database_url
    return db.connect(address, "rowledger-desk")


def dag_of(kind: str) -> str:
    """The DAG that works off the batches of a kind."""
    return f"{kind}_import"


def page_path(path: str) -> str:
    """The address of a page of the desk inside Airflow's own, under the path that Airflow is served at, if any."""
    from urllib.parse import urlsplit

    from airflow.configuration import conf

    base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{base}/plugin/{ROUTE}{base}{PREFIX}/{path}"


def taken_on(dag: str, run_id: str) -> list[int] | None:
    """The batches that the mapped tasks of a run work at, in their order; None if they are not there (any more).

    They are what ``sense`` handed on; a batch that is worked in parts stands in as many places.
    """
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        asked = XComModel.get_many(key="return_value", run_id=run_id, dag_ids=dag, task_ids="sense")
        found: Any = session.scalar(asked.with_only_columns(XComModel.value))
    with contextlib.suppress(TypeError, ValueError):  # nothing, or what a backend of its own keeps elsewhere
        return [int(seqno) for seqno, _ in (json.loads(found) if isinstance(found, str) else found)]
    return None


class Guard:
    """Users and rights are Airflow's: what somebody may do with the runs of a kind's DAG, they may do with its batches.

    Whoever may change Airflow's variables, which are set-up for all DAGs too, may change reference data.
    """

    async def who(self, request: Request) -> User:
        """The user of a token, or of a session's cookie. Raises Refused."""
        from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
        from fastapi import HTTPException

        from rowledger.desk.access import User
        from rowledger.desk.problems import Refused

        bearer = await bearer_scheme(request)
        try:
            user = await get_user(request, None, bearer)
        except HTTPException as error:
            sentence = "Sign in to Airflow first." if error.status_code == 401 else "This token is not valid."
            raise Refused(error.status_code, sentence) from None
        return User(user.get_name(), bearer is None, user)

    def may(self, user: User, right: Right, kind: str) -> bool:
        """Whether Airflow lets the user read, trigger, or change runs of the kind's DAG, or change variables."""
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import (
            DagAccessEntity,
            DagDetails,
            VariableDetails,
        )
        from airflow.models.dag import DagModel

        from rowledger.desk.access import Right

        methods: dict[Right, Method] = {Right.READ: "GET", Right.WRITE: "POST", Right.PERSONAL: "PUT"}
        try:
            if right is Right.SET_UP:
                variable = VariableDetails(key="rowledger_reference_data")
                return get_auth_manager().is_authorized_variable(
                    method="PUT", details=variable, user=user.given
                )
            dag_id = dag_of(kind)
            details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
            return get_auth_manager().is_authorized_dag(
                method=methods[right], access_entity=DagAccessEntity.RUN, details=details, user=user.given
            )
        except (AttributeError, KeyError, ValueError):  # a role that the auth manager does not know
            return False


class Engine:
    """Airflow, seen from the desk."""

    def schedule(self, kind: str) -> Schedule | None:
        """When the kind's DAG runs next; None if Airflow has not found it yet."""
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session

        from rowledger.desk.context import Schedule

        with create_session(scoped=False) as session:
            dag = session.get(DagModel, dag_of(kind))
            return Schedule(bool(dag.is_paused), dag.next_dagrun_create_after) if dag else None

    def run_now(self, kind: str, by: str) -> str:
        """Trigger the kind's DAG; returns the run's id. Raises NotPossible."""
        from airflow.api.common.trigger_dag import trigger_dag
        from airflow.exceptions import DagNotFound
        from airflow.sdk.exceptions import AirflowException
        from airflow.utils.types import DagRunTriggeredByType

        from rowledger.errors import NotPossible

        dag_id = dag_of(kind)
        schedule = self.schedule(kind)
        if schedule is None or schedule.paused:
            why = "is paused; switch it on first" if schedule else "is not there"
            raise NotPossible(f"The DAG {dag_id} {why}. Nothing was started.")
        try:
            run = trigger_dag(dag_id, triggered_by=DagRunTriggeredByType.REST_API, triggering_user_name=by)
        except (DagNotFound, AirflowException, ValueError) as error:
            raise NotPossible(f"Airflow did not start a run of {dag_id}: {error}") from None
        assert run
        return str(run.run_id)

    def kind_of(self, dag: str) -> str | None:
        """The kind whose batches a DAG works off; None for a DAG that is not ours."""
        from rowledger import loading

        return next((kind for kind in loading.kinds() if dag_of(kind) == dag), None)

    def taken_on(self, kind: str, run_id: str) -> list[int] | None:
        """The batches that a run took on, in the order of its mapped tasks; None if Airflow does not know any more."""
        return taken_on(dag_of(kind), run_id)

    def run_path(self, kind: str, run_id: str) -> str:
        """The page of a run."""
        from urllib.parse import quote

        return f"/dags/{dag_of(kind)}/runs/{quote(run_id, safe='')}"

    def task_path(self, kind: str, run_id: str, task: str, index: int) -> str:
        """The page of a mapped task of a run, with its log."""
        return f"{self.run_path(kind, run_id)}/tasks/import_batch.{task}/mapped/{index}"
