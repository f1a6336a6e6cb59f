"""The desk in a browser, inside the frame that the real Airflow gives it."""

from __future__ import annotations

from engine import Engine
from playwright.sync_api import FrameLocator, Page, expect


def desk(page: Page, engine: Engine, path: str = "") -> FrameLocator:
    """A page of the desk, in the frame of Airflow's page."""
    page.goto(f"{engine.place.url}/plugin/imports{f'/imports/{path}' if path else ''}")
    return page.frame_locator("iframe[title=Imports]")


def shown(frame: FrameLocator, heading: str) -> None:
    """Waits for a page and its scripts: what is clicked before they are there is lost, as for a hasty person."""
    expect(frame.get_by_role("heading", level=1)).to_contain_text(heading)
    loaded = "document.readyState === 'complete' ? null : new Promise(done => addEventListener('load', done))"
    frame.locator("body").evaluate(f"() => {loaded}")
