"""Style, scripts, and htmx out of its wheel."""

from __future__ import annotations

from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import FileResponse

from rowledger.desk.access import Needs, Right
from rowledger.desk.problems import Refused

router = APIRouter(prefix="/static", dependencies=[Depends(Needs(Right.READ))])
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
KEPT = {"Cache-Control": "private, max-age=86400"}  # an address changes with what it leads to


@router.get("/htmx.min.js")
def htmx() -> FileResponse:
    """The library, from the package that brings it."""
    return _file("js_lib_htmx", "static/htmx/htmx.min.js")


@router.get("/{name}")
def own(name: Annotated[str, Path(pattern=r"^[a-z_]+\.(css|js|svg)$")]) -> FileResponse:
    """A file of our own."""
    return _file("rowledger.desk", f"static/{name}")


def _file(package: str, path: str) -> FileResponse:
    with resources.as_file(resources.files(package).joinpath(path)) as file:
        if not file.is_file():
            raise Refused(404, "There is nothing at this address.")
        return FileResponse(file, headers=KEPT, media_type=TYPES["." + path.rpartition(".")[2]])
