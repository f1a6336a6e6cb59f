"""Templates as people look at them: those of the folder and those of old batches, and what became of their files."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rowledger import loading, templates
from rowledger.db import Connection, queries, row, rows, transaction
from rowledger.desk import batch_list
from rowledger.desk.context import Desk
from rowledger.desk.problems import Refused
from rowledger.errors import TemplateError
from rowledger.model import Batch
from rowledger.templates import ImportTemplate, fold_header, in_words

_SQL = queries("template_use")
LOOKED_AT = 200  # the newest batches of a template whose reasons are added up
NEWEST = 10  # batches that a page shows


def overview(desk: Desk, connection: Connection, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Every template of these kinds, by name: those that can be used, and those that old batches were uploaded with."""
    found = {
        (t.name, t.kind): {"name": t.name, "kind": t.kind, "title": t.title, "there": True} | _UNUSED
        for t in desk.shelf.all()
        if t.kind in kinds
    }
    with transaction(connection) as cursor:
        for used in rows(cursor, _SQL["used"], {"kinds": list(kinds)}):
            gone = {"name": used["name"], "kind": used["kind"], "title": None, "there": False}
            found[used["name"], used["kind"]] = found.get((used["name"], used["kind"]), gone) | used
    return [found[key] for key in sorted(found)]


_UNUSED = {"versions": 0, "batches": 0, "last_used_at": None}


def wrong(desk: Desk) -> list[dict[str, str]]:
    """The files of the folder that are no template, and why."""
    folder = desk.settings.templates
    right = {template.name for template in desk.shelf.all()}
    found = []
    for path in sorted(path for path in folder.glob("*.yml") if path.stem not in right):
        try:
            templates.read_template(path, loading.kinds())
        except TemplateError as error:
            found.append({"name": path.stem, "message": str(error).replace(str(path), path.name)})
    return found


@dataclass(frozen=True)
class Shown:
    """One version of a template. ``there``: new files are uploaded with it; ``gone``: with no version any more."""

    template: ImportTemplate
    there: bool
    gone: bool
    versions: list[dict[str, Any]]

    @property
    def suite_hash(self) -> str | None:
        """Of the suite that judged its batches; none if there was no batch yet."""
        return next(
            (v["suite_hash"] for v in self.versions if v["template_hash"] == self.template.hash), None
        )


def find(
    desk: Desk, connection: Connection, kinds: Sequence[str], name: str, version: str | None = None
) -> Shown:
    """A template of one of these kinds, as it is now or in an older version by its hash. Raises Refused."""
    now = next((t for t in desk.shelf.all() if t.name == name), None)
    kind = now.kind if now else _kind_of_old(connection, name)
    if kind is None:
        raise Refused(404, f'There is no template "{name}".')
    if kind not in kinds:
        raise Refused(
            403, f"Your role may not see templates of the kind {kind}; ask an administrator for it."
        )
    versions = _versions(connection, name, kind)
    if now and version in (None, now.hash):
        return Shown(now, True, False, versions)
    old = next((v for v in versions if version in (None, v["template_hash"])), None)
    if old is None:
        raise Refused(404, f'The template "{name}" has no version {version}.')
    return Shown(_parse(old["source"], name), False, now is None, versions)


def _kind_of_old(connection: Connection, name: str) -> str | None:
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["kind_of_old"], {"name": name})
    return str(found["kind"]) if found else None


def _versions(connection: Connection, name: str, kind: str) -> list[dict[str, Any]]:
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["versions"], {"name": name, "kind": kind})


@functools.lru_cache(maxsize=200)
def _parse(source: str, name: str) -> ImportTemplate:
    return templates.parse_template(source, name, loading.kinds(), f"template {name}")


def newest(connection: Connection, template: ImportTemplate) -> list[Batch]:
    """The newest batches of a template, in any version."""
    asked = {"name": template.name, "kind": template.kind, "limit": NEWEST}
    with transaction(connection) as cursor:
        seqnos = [r["seqno"] for r in rows(cursor, _SQL["batches"], asked)]
    found = batch_list.some(connection, seqnos, [template.kind])
    return sorted(found, key=lambda batch: -batch.seqno)


@dataclass(frozen=True)
class Rejections:
    """How often each rule kept records out, in the newest ``LOOKED_AT`` batches of a template that have ended."""

    rules: list[dict[str, Any]]
    of_batches: int
    of_records: int

    def of_column(self, name: str) -> int:
        """Records that were rejected for a column; one with two faults there counts twice."""
        return sum(r["records"] for r in self.rules if r["column"] == name and r["outcome"] == "rejected")

    @property
    def most(self) -> int:
        """Of the commonest rule."""
        return max((r["records"] for r in self.rules), default=0)


def rejections(connection: Connection, template: ImportTemplate) -> Rejections:
    """Added up from the counts that are made when a batch ends; the ledger is not read."""
    asked = {"name": template.name, "kind": template.kind, "limit": LOOKED_AT}
    with transaction(connection) as cursor:
        found = rows(cursor, _SQL["rejections"], asked)
    batches, records = (found[0]["of_batches"], found[0]["of_records"]) if found else (0, 0)
    return Rejections(_by_our_names(found, template, records or 0), batches, records or 0)


def _by_our_names(
    found: Iterable[dict[str, Any]], template: ImportTemplate, records: int
) -> list[dict[str, Any]]:
    """Files may call a column by an alias; here it is one column."""
    ours = {fold_header(n): c.name for c in template.columns for n in (c.name, *c.aliases)}
    told: dict[tuple[str, str, str | None], dict[str, Any]] = {}
    for one in found:
        if one["rule"] is None:
            continue
        column = ours.get(fold_header(one["column"]), one["column"]) if one["column"] else None
        same = told.setdefault(
            (one["outcome"], one["rule"], column), {"records": 0, "batches": 0, "last_seqno": 0}
        )
        same["records"] += one["records"]
        same["batches"] += one["batches"]
        same["last_seqno"] = max(same["last_seqno"], one["last_seqno"])
    ordered = sorted(
        told.items(), key=lambda item: (-item[1]["records"], item[0][0], item[0][1], item[0][2] or "")
    )
    return [
        {"outcome": outcome, "rule": rule, "column": column, "share": round(counts["records"] / records, 6)}
        | counts
        for (outcome, rule, column), counts in ordered
    ]


def columns(template: ImportTemplate) -> list[dict[str, Any]]:
    """Its columns in words, in the order of a file."""
    kind = loading.kinds()[template.kind]
    return [
        {
            "name": column.name, "field": column.field, "position": column.position, "aliases": list(column.aliases),
            "severity": column.severity, "required": column.required, "rules": in_words.rules(column),
            "writing": in_words.writing(column, kind.name, kind.match_keys),
        }
        for column in template.columns
    ]  # fmt: skip


def policies(template: ImportTemplate) -> list[str]:
    """What becomes of whole records, in sentences."""
    kind = loading.kinds()[template.kind]
    return in_words.policies(template, kind.match_keys, kind.policies)
