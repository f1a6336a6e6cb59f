"""The style of pages that may load nothing: those in Airflow's own tabs, which are sandboxed, and those of who is refused."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources


@functools.cache
def style() -> str:
    """What stands between the style tags."""
    return resources.files("rowledger.desk").joinpath("static/desk.css").read_text(encoding="utf-8")


@functools.cache
def style_source() -> str:
    """What a content security policy calls it: this style may stand in a page, and no other."""
    digest = hashlib.sha256(style().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
