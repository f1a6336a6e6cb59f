"""The import desk: pages inside Airflow's UI, and a REST API, for the people who upload, read and act.

In: a way to connect, a guard that knows users and rights, the settings, what is derived from templates, the engine
that works batches off, and a judge in another process. Out: an app that can be mounted anywhere. It reads through the
ledger and the batches; it never judges a file itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from rowledger import loading
from rowledger.db import Connection
from rowledger.desk import (
    batches_api,
    checks_api,
    contacts_page,
    contracts_page,
    control_api,
    downloads_api,
    imports_page,
    lookups_api,
    mend_api,
    mend_page,
    one_import_page,
    operations_api,
    operations_page,
    parked_api,
    parked_page,
    records_api,
    reference_api,
    rerun_api,
    run_page,
    set_up_page,
    static_files,
    statuses_api,
    templates_api,
    templates_page,
    upload_api,
    upload_page,
)
from rowledger.desk.access import Gate, Guard
from rowledger.desk.context import Connections, Desk, Engine, Judge, Suites
from rowledger.desk.pages import environment
from rowledger.desk.problems import add_handlers
from rowledger.desk.shelf import Shelf
from rowledger.settings import Settings

API = "/api/v1"
APIS = (
    batches_api, upload_api, statuses_api, checks_api, control_api, rerun_api, mend_api, records_api, downloads_api,
    lookups_api, templates_api, reference_api, operations_api, parked_api,
)  # fmt: skip
PAGES = (
    imports_page, upload_page, one_import_page, contracts_page, contacts_page, templates_page, set_up_page, static_files,
    mend_page, run_page, operations_page, parked_page,
)  # fmt: skip


class _GuardedApp(FastAPI):
    """An app whose outermost layer is the gate: also errors go out through it, and nothing goes around it."""

    def build_middleware_stack(self) -> ASGIApp:
        desk: Desk = self.state.desk
        return Gate(super().build_middleware_stack(), desk.guard, tuple(desk.kinds))


def create_app(
    connect: Callable[[], Connection],
    guard: Guard,
    *,
    settings: Settings,
    suites: Suites,
    engine: Engine | None = None,
    judge: Judge | None = None,
) -> FastAPI:
    """The app, to be mounted under any prefix. Nothing is connected to or read before the first request."""
    desk = Desk(
        Connections(connect), guard, settings, suites, engine,
        {name: kind.title for name, kind in loading.kinds().items()}, Shelf(settings.templates), environment(),
        judge,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.connections.close()
        if desk.judge:
            desk.judge.close()

    app = _GuardedApp(
        title="Rowledger imports", version="1", openapi_url=f"{API}/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=lifespan, description=__doc__ or "",
    )  # fmt: skip
    app.state.desk = desk
    for module in APIS:
        app.include_router(module.router, prefix=API)
    for module in PAGES:
        app.include_router(module.router, include_in_schema=False)
    add_handlers(app)
    return app
