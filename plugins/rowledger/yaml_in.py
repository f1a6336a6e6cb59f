"""YAML that people wrote: a file -> its text -> its tree, which knows lines -> its data.

Not taken: what is no YAML, what explodes (aliases), what takes for ever (deep nesting), and what would be lost without
a word (a key that is given twice). Whoever reads a file of a sort puts its name before what ``WrongYaml`` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 20


class WrongYaml(Exception):
    """What is wrong and on which line, to stand right behind the name of the file."""

    def __init__(self, fault: str, line: int | None = None, column: int | None = None) -> None:
        place = "" if line is None else f", line {line}" + ("" if column is None else f", column {column}")
        super().__init__(f"{place}: {fault}")


def text_of(path: Path) -> str:
    """The text of a file. Raises WrongYaml."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise WrongYaml(f"cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise WrongYaml(f"is not UTF-8 at byte {error.start}; save it as UTF-8.") from None


def tree(text: str) -> yaml.Node | None:
    """The tree of the one document in a text, None if there is nothing. Raises WrongYaml."""
    with _speaking():
        _refuse_what_explodes(text)
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    for node in walk(root):
        if isinstance(node, yaml.MappingNode):
            _refuse_keys_given_twice(node)
    return root


def walk(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """A node and all below it, keys too, in the order of the text."""
    if node is not None:
        yield node
    if isinstance(node, yaml.CollectionNode):
        for part in node.value:
            for one in part if isinstance(part, tuple) else (part,):
                yield from walk(one)


def line_of(node: yaml.Node) -> int:
    """The line on which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def sentence(where: str, root: yaml.Node, loc: Sequence[int | str], fault: str) -> str:
    """A fault with the name of the file, the line and the path of what it is about."""
    path = ".".join(str(part + 1) if isinstance(part, int) else part for part in loc)
    return f"{where}, line {_line_at(root, loc)}{f', {path}' if path else ''}: {fault}"


def _line_at(node: yaml.Node, loc: Sequence[int | str]) -> int:
    line = node.start_mark.line
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            match = [(key, value) for key, value in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            match = [(node.value[part], node.value[part])]
        else:
            break
        if not match:
            break
        line, node = match[0][0].start_mark.line, match[0][1]
    return line + 1


def data(root: yaml.Node | None) -> Any:
    """What a tree says. Raises WrongYaml."""
    with _speaking():
        return None if root is None else yaml.SafeLoader("").construct_document(root)


def _refuse_what_explodes(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        assert event.start_mark
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise WrongYaml("aliases (*) are not allowed; write it out.", line)
        if depth > MAX_DEPTH:
            raise WrongYaml(f"is nested too deep; {MAX_DEPTH} levels are allowed.", line)


def _refuse_keys_given_twice(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise WrongYaml(f'"{key.value}" is given twice; keep one.', line_of(key))
            seen.add(key.value)


@contextmanager
def _speaking() -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else ()
        raise WrongYaml(f"is not valid YAML ({error.problem}).", *place) from None
    except (yaml.YAMLError, ValueError) as error:  # a character or a date that there is not
        raise WrongYaml(f"is not valid YAML ({getattr(error, 'reason', error)}).") from None
