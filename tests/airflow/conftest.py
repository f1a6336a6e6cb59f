"""One real Airflow for the whole run, on the throw-away PostgreSQL; what has one of its own comes first, what kills its parts last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine import Engine, started
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

expect.set_options(timeout=60_000)  # of a busy machine


@pytest.fixture(scope="session")
def engine(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with started(server, tmp_path_factory.mktemp("airflow")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a module at most: while Playwright is in use, no other test of the run can start an event loop."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def sign_in(engine: Engine, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Gives a page of somebody who has signed in to Airflow."""
    contexts: list[BrowserContext] = []

    def sign_in(user: str, color_scheme: Any = "light") -> Page:
        contexts.append(
            browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme=color_scheme)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{engine.place.url}/")
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", engine.place.password_of(user))
        page.keyboard.press("Enter")
        page.wait_for_url(f"{engine.place.url}/")
        return page

    yield sign_in
    for context in contexts:
        context.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    airflow = [item for item in items if item.path.parent.name == "airflow"]
    places = [place for place, item in enumerate(items) if item in airflow]
    order = {"test_many_machines": -1, "test_kills": 1}
    airflow.sort(key=lambda item: order.get(item.path.stem, 0))
    for place, item in zip(places, airflow, strict=True):
        items[place] = item
