"""YAML -> Feed, and who is told by default in a domain.

In: ``.yml`` files of one folder, written by people. Out: checked, frozen ``Feed``s by name, and a ``FeedError`` for each
file that is wrong, which names file and line, what is wrong and what would be right. One wrong feed never harms another.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rowledger import templates, yaml_in
from rowledger.errors import FeedError, TemplateError, UnknownCode
from rowledger.feeds.model import Fault
from rowledger.feeds.model import Feed as Feed
from rowledger.feeds.model import Tell as Tell
from rowledger.model import Kind
from rowledger.templates import ImportTemplate

DOMAINS = "domains"  # the file that says who is told in which domain
MAX_FEED_BYTES = 64 * 1024
_UNKNOWN_KEY = "is not a known key; check the spelling against docs/feeds.md."
_Said = TypeVar("_Said", bound=BaseModel)


def read_feeds(
    folder: Path, kinds: Mapping[str, Kind], template_folder: Path | None = None
) -> tuple[list[Feed], list[FeedError]]:
    """All feeds of a folder, the most urgent first, and an error for each that is wrong. No folder, no feeds.

    With a folder of templates they are checked against these as well, which costs more than to read them.
    """
    feeds, errors = [], []
    for path in sorted(folder.glob("*.yml")):
        if path.stem == DOMAINS:
            continue
        try:
            feeds.append(read_feed(path, kinds, template_folder))
        except FeedError as error:
            errors.append(error)
    return sorted(feeds, key=lambda feed: (-feed.priority, feed.name)), errors


def read_feed(path: Path, kinds: Mapping[str, Kind], template_folder: Path | None = None) -> Feed:
    """Read and check one feed. Raises FeedError."""
    root, feed = _read(path, Feed, {"name": path.stem})
    for loc, fault in _faults(feed, kinds, template_folder):
        raise FeedError(yaml_in.sentence(str(path), root, loc, fault))
    return feed


def template_of(feed: Feed, template_folder: Path, kinds: Mapping[str, Kind]) -> ImportTemplate:
    """The template of a feed. Raises UnknownCode, TemplateError or FeedError."""
    template = templates.find_template(template_folder, feed.template, kinds)
    for loc, fault in _template_faults(feed, template):
        raise FeedError(f"{loc[0]} {fault}")
    return template


def read_domains(folder: Path) -> dict[str, Tell]:
    """Whom ``domains.yml`` names, by the code of the domain. Raises FeedError."""
    path = folder / f"{DOMAINS}.yml"
    if not path.exists():
        return {}
    return _read(path, _Domains, {})[1].domains


class _Domains(BaseModel):
    """Who is told by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    domains: dict[str, Tell]


def _faults(feed: Feed, kinds: Mapping[str, Kind], template_folder: Path | None) -> Iterator[Fault]:
    if feed.kind not in kinds:
        yield ("kind",), f"must be one of {', '.join(sorted(kinds))}, not {feed.kind!r}."
    yield from feed.faults
    if template_folder:
        try:
            yield from _template_faults(feed, templates.find_template(template_folder, feed.template, kinds))
        except (UnknownCode, TemplateError) as error:
            yield ("template",), str(error)


def _template_faults(feed: Feed, template: ImportTemplate) -> Iterator[Fault]:
    """What of a feed its template does not allow."""
    if template.kind != feed.kind:
        yield ("template",), f"{feed.template!r} is for {template.kind}, not for {feed.kind}."
    if template.domains and feed.domain not in template.domains:
        those = ", ".join(template.domains)
        yield ("domain",), f"{feed.domain!r} is not one that the template is for; it is for {those}."
    given: tuple[tuple[str, Collection[str], Collection[str] | None], ...] = (
        ("origins", feed.origins, template.origins),
        ("subscriptions", feed.subscriptions, template.subscriptions),
    )
    for key, codes, allowed in given:
        for code in codes if allowed is not None else ():
            if code not in (allowed or ()):
                those = ", ".join(allowed or ()) or "none"
                yield (key,), f"{code!r} cannot be chosen with the template; those that can are: {those}."


def _read(path: Path, model: type[_Said], ours: Mapping[str, Any]) -> tuple[yaml.Node, _Said]:
    """A file by its model, and its tree for what else may be wrong with it. Raises FeedError."""
    where = str(path)
    try:
        text = yaml_in.text_of(path)
        if len(text.encode()) > MAX_FEED_BYTES:
            raise FeedError(f"{where}: is larger than {MAX_FEED_BYTES // 1024} kB; a feed is a page of text.")
        root = yaml_in.tree(text)
        _take_words_as_they_stand(root)
        data = yaml_in.data(root)
    except yaml_in.WrongYaml as error:
        raise FeedError(f"{where}{error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise FeedError(f"{where}: is empty or not a mapping; begin with: title: Results of the call centre")
    for key in data.keys() & ours.keys():
        raise FeedError(yaml_in.sentence(where, root, (key,), _UNKNOWN_KEY))
    try:
        return root, model.model_validate_json(json.dumps(data | dict(ours), default=str))
    except ValidationError as error:
        problem = error.errors()[0]
        raise FeedError(yaml_in.sentence(where, root, problem["loc"], _words(problem))) from None


def _take_words_as_they_stand(root: yaml.Node | None) -> None:
    """Codes, names and times are what people write, without quotes too: NO, 0815, 18:00. The model reads the numbers."""
    for node in yaml_in.walk(root):
        if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null":
            node.tag = "tag:yaml.org,2002:str"


_FORMS = {
    "every": "must be a number and s, m, h or d, such as 1d",
    "settled_after": "must be a number and s, m, h or d, such as 10s",
    "by": "must be a time of the day in UTC, such as 06:00",
    "url": "must be an address such as https://partner.example/hook",
    "secret": "must be the id of an Airflow connection",
}


def _words(problem: Mapping[str, Any]) -> str:
    """pydantic's finding in the author's words."""
    if problem["type"] == "missing":
        return "is missing; it must be said."
    if problem["type"] == "extra_forbidden":
        return _UNKNOWN_KEY
    form = _FORMS.get(str(problem["loc"][-1])) if problem["type"] == "string_pattern_mismatch" else None
    message = form or problem["msg"].replace("Input should be", "must be").replace("valid array", "list")
    return f"{message}, not {problem['input']!r}."
