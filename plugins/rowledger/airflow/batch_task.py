"""Tasks that work on one import batch: ``@batch_task`` is ``@task``, with a link to the page of the batch on each of them.

An operator of its own, so that the link stands on these tasks and on nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.bases.decorator import TaskDecorator, task_decorator_factory

from rowledger.airflow import desk


class BatchOperator(_PythonDecoratedOperator):
    """What a ``@batch_task`` is made into."""

    custom_operator_name = "@batch_task"


def batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a task of a function that works on one batch, to be mapped over what ``sense`` hands on."""
    return task_decorator_factory(
        python_callable, decorated_operator_class=BatchOperator, multiple_outputs=None, **kwargs
    )


class BatchLink(BaseOperatorLink):
    """The link on a mapped task to the page of its batch, asked for in the API server."""

    name = "Import batch"
    operators = [BatchOperator]  # noqa: RUF012 - Airflow's way

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """The page in Airflow's frame; nothing for a task that no batch has been given to yet."""
        seqnos = desk.taken_on(ti_key.dag_id, ti_key.run_id) or []
        if not 0 <= ti_key.map_index < len(seqnos):
            return ""
        return desk.page_path(f"batches/{seqnos[ti_key.map_index]}")
