"""The import templates as they are now and as they were: read anew only when a file has changed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from rowledger import batches, loading, templates
from rowledger.db import Connection
from rowledger.errors import TemplateError, UnknownCode
from rowledger.model import Batch
from rowledger.templates import ImportTemplate


class Shelf:
    """The folder of templates, and those that are built in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[ImportTemplate]:
        """Every template that is right, by name, the built-in ones last."""
        found = []
        for path in templates.files(self._folder):
            try:
                found.append(self._read(path))
            except TemplateError:
                continue  # `rowledger templates` says what is wrong; the others are as usable as ever
        return found

    def find(self, name: str, kind: str) -> ImportTemplate:
        """The template of that name and kind. Raises UnknownCode or TemplateError."""
        path = next((one for one in templates.files(self._folder) if one.stem == name), None)
        if path is None:
            names = ", ".join(template.name for template in self.all() if template.kind == kind) or "none"
            raise UnknownCode(f'There is no template "{name}". Templates of the kind {kind} are: {names}.')
        template = self._read(path)
        if template.kind != kind:
            raise UnknownCode(f'Template "{name}" is for {template.kind}, not for {kind}.')
        return template

    def _read(self, path: Path) -> ImportTemplate:
        try:
            stat = path.stat()
        except OSError as error:
            raise TemplateError(f"{path}: cannot be read ({error.strerror}).") from None
        return _read(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1000)
def _read(path: Path, changed: int, size: int) -> ImportTemplate:
    return templates.read_template(path, loading.kinds())


@functools.lru_cache(maxsize=200)
def _parse(source: str, name: str) -> ImportTemplate:
    return templates.parse_template(source, name, loading.kinds(), f"template {name}")


def template_of(connection: Connection, batch: Batch) -> ImportTemplate:
    """The template version that a batch was uploaded with."""
    name, source = batches.template_source(connection, batch)
    return _parse(source, name)


def usable(found: Sequence[ImportTemplate], kind: str, domain: str) -> list[ImportTemplate]:
    """Those of a kind that may be chosen in a domain."""
    return [one for one in found if one.kind == kind and (not one.domains or domain in one.domains)]
