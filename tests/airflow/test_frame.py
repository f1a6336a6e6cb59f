"""The desk in a browser, inside the frame that Airflow gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from browsing import desk, shown
from playwright.sync_api import Page, expect

CONTACTS = (
    "Customer number,Email,Last name,Country\nFRAME1,frame1@example.com,A,DE\nFRAME2,frame2@example.com,,DE\n"
)


@pytest.fixture
def page(sign_in: Callable[..., Page]) -> Page:
    return sign_in("user")


def test_somebody_uploads_a_file_in_the_frame_and_sees_what_became_of_it(engine: Any, page: Page) -> None:
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if "Content Security Policy" in m.text else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    frame = desk(page, engine)
    frame.get_by_role("link", name="New import").first.click()
    shown(frame, "New import")
    frame.get_by_label("Kind").select_option("contact")
    file = {"name": "frame.csv", "mimeType": "text/csv", "buffer": CONTACTS.encode()}
    frame.locator("#file").set_input_files(file)
    frame.get_by_role("button", name="Upload").click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("frame.csv")
    seqno = int(str(frame.get_by_role("heading", level=1).text_content()).split()[0].removeprefix("#"))
    if not engine.batch(seqno).status.terminal:
        engine.trigger("contact_import")
    expect(frame.locator("#head .legend")).to_contain_text("1 rejected", timeout=120_000)
    frame.get_by_role("tab", name="Errors").click()
    expect(frame.get_by_role("tabpanel")).to_contain_text("Last name")
    frame.get_by_role("tab", name="Activity").click()
    frame.get_by_role("link", name="Run").click()
    page.wait_for_url("**/dags/contact_import/runs/**")  # of the whole page, not of the frame
    assert faults == []


def test_the_frame_is_light_or_dark_as_airflow_is(engine: Any, page: Page) -> None:
    root = desk(page, engine).locator("html")
    expect(root).to_have_css("color-scheme", "light")
    page.evaluate("localStorage.setItem('theme', 'dark')")
    expect(root).to_have_css("color-scheme", "dark")  # without a reload
    page.reload()
    expect(root).to_have_css("color-scheme", "dark")


def test_asking_first_works_where_alerts_do_not(engine: Any, page: Page) -> None:
    engine.api.call("PATCH", "/dags/contact_import", {"is_paused": True})
    try:
        seqno = engine.submit("Email,Last name\nasked@example.com,A\n")
        frame = desk(page, engine, f"batches/{seqno}")
        shown(frame, f"#{seqno} ")
        frame.get_by_role("button", name="Cancel", exact=True).click()
        frame.get_by_role("button", name="Leave it as it is").click()
        frame.get_by_role("button", name="Pause").click()
        frame.get_by_role("dialog").get_by_label("Why?").fill("lunch")
        frame.get_by_role("dialog").get_by_role("button", name="Pause").click()
        expect(frame.locator("#notice")).to_contain_text("is paused")
        expect(frame.get_by_role("button", name="Resume")).to_be_visible()
        assert engine.batch(seqno).status == "paused"
    finally:
        engine.api.call("PATCH", "/dags/contact_import", {"is_paused": False})
