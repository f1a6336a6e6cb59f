"""A sample file -> a proposal for its import template, with the evidence in comments.

Every record of the file is looked at, a chunk at a time, and the proposal is then judged as an import would judge it.
What it proposes takes the file it came from: where a few values do not obey the rule that the others show, the rule
warns. It never quotes what people wrote into the file, only record numbers: a template is kept, shown and shared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rowledger.errors import FileError, TemplateError
from rowledger.infer.column_facts import NAMED_RECORDS, ColumnFacts, Rule
from rowledger.infer.field_words import fields_by_word, word
from rowledger.infer.sniff import Form, sniff
from rowledger.model import Kind, TargetField
from rowledger.records_in import Records
from rowledger.templates import OWN_PREFIX, fold_header, parse_template
from rowledger.templates.model import Column, ImportTemplate
from rowledger.validation import Validation

CHUNK = 20_000
FEW = 20  # records say nothing about what is never empty
_LENGTHS = (40, 100, 255, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_REGIONS = {
    "telefon": "DE",
    "mobil": "DE",
    "handy": "DE",
    "telefoon": "NL",
    "mobiel": "NL",
}  # by words of a header
_UNMAPPED_TYPES = ("date", "email", "boolean", "number", "text")


@dataclass(frozen=True)
class Proposal:
    """The text of a template, and whether it can be used as it is."""

    text: str
    usable: bool


@dataclass
class _Column:
    """One column of the proposal: its keys in order, and why."""

    keys: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


def propose(
    path: Path,
    kind: Kind,
    kinds: Mapping[str, Kind],
    others: Sequence[ImportTemplate],
    scratch: Path,
    region: str | None = None,
) -> Proposal:
    """A template for files like this one.

    ``others`` are templates that may know other names of fields; ``region`` is where phone numbers without a country
    code are. Raises FileError, as an import would, if the file cannot be read.
    """
    import pyarrow

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # Arrow's own pool keeps what it no longer needs
    fields = fields_by_word(kind, others)
    form = sniff(path, fields)
    with Records(path, _skeleton(form, kind), scratch) as records:
        places = zip(records.layout.names, records.layout.places, strict=True)
        seen = [ColumnFacts(name.strip(), place) for name, place in places if place is not None]
        if not records.count and not form.file.header:
            raise FileError("empty_file", "The file has no record, so that there is nothing to go by.")
        for chunk in records.chunks(0, CHUNK):
            for column in seen:
                column.look(chunk.cells, _regions(column, region))
        maker = _Maker(kind, form, seen, records.count, region)
        maker.decide += [
            warning.message for warning in records.warnings if warning.rule == "suspect_mojibake"
        ]
    columns = maker.columns(fields)
    body = _written(path, kind, form, columns)
    checked, usable = _checked(body, path, kind, kinds, scratch)
    head = [
        f"Proposed for files like {_shown(path.name)}; all of its {maker.count:,} records were looked at.",
        *(f"To decide: {question}" for question in maker.decide),
        *checked,
    ]
    schema = "# yaml-language-server: $schema=template.schema.json\n"
    return Proposal(schema + "".join(f"# {line}\n" for line in head) + body, usable)


def _skeleton(form: Form, kind: Kind) -> ImportTemplate:
    """A template that takes any text, to read the file with."""
    if form.file.header:
        names = [name.strip() for name in form.first]
        known = [name for name in names if _nameable(name)]
        # Without a name, reading the file says what is wrong with its header.
        columns = [Column(header=name, multiline=True) for name in known] or [Column(header="?")]
    else:
        columns = [Column(position=place + 1, multiline=True) for place in range(form.width)]
    return ImportTemplate(
        name="proposal", hash="", source="", kind=kind.name, title="x", file=form.file, columns=tuple(columns)
    )


def _nameable(name: str) -> bool:
    fold = fold_header(name)
    return bool(fold) and not fold.startswith(OWN_PREFIX) and "\0" not in name


def _regions(column: ColumnFacts, region: str | None) -> tuple[str | None, ...]:
    """Where the phone numbers of a column may be: as said, else as the language of its name suggests."""
    guess = region or _REGIONS.get(word(column.name))
    return (None, guess) if guess else (None,)


class _Maker:
    """Makes the columns of a proposal; ``decide`` is what a person must decide."""

    def __init__(
        self, kind: Kind, form: Form, seen: list[ColumnFacts], count: int, region: str | None
    ) -> None:
        self.decide: list[str] = []
        self.count = count
        self._kind = kind
        self._form = form
        self._seen = seen
        self._region = region
        self._chosen: dict[str, tuple[ColumnFacts, str]] = {}

    def columns(self, fields: Mapping[str, str]) -> list[_Column]:
        """Choose which columns fill which fields, and say of each what its values are."""
        self._choose_by_name(fields)
        self._choose_by_values()
        targets = {id(facts): (self._kind.field(name), why) for name, (facts, why) in self._chosen.items()}
        return [self._column(facts, *targets.get(id(facts), (None, ""))) for facts in self._seen]

    def _choose_by_name(self, fields: Mapping[str, str]) -> None:
        for exact in (True, False):  # a column called as the field itself goes before one that only means it
            for facts in self._seen:
                name = fields.get(word(facts.name))
                if not name or (
                    exact and word(facts.name) not in (word(name), word(self._kind.field(name).title))
                ):
                    continue
                if self._fits(facts, self._kind.field(name)):
                    self._choose(facts, name, "by its name")
                elif not exact:
                    self.decide.append(self._misfit(facts, name))

    def _misfit(self, facts: ColumnFacts, name: str) -> str:
        types = " or ".join(self._kind.field(name).types)
        help = " (try --region, if they have no country code)" if types == "phone" else ""
        counts = [count for (type, _), count in facts.counts.items() if type in types]
        right = f"only {max(counts, default=0):,} of its {facts.filled:,} values are {types}{help}"
        return f"{_shown(facts.name)} is called like {name}, but {right}. As it is, it fills nothing."

    def _choose(self, facts: ColumnFacts, name: str, why: str) -> None:
        if name not in self._chosen and all(facts is not other for other, _ in self._chosen.values()):
            self._chosen[name] = facts, why

    def _choose_by_values(self) -> None:
        """What the kind needs and no name tells: guessed, and said so."""
        kind = self._kind
        needed = [name for name in kind.required_fields if name not in self._chosen]
        if not kind.required_fields and not set(kind.match_keys) & set(self._chosen):
            needed = list(reversed(kind.match_keys))  # an address shows what it is
        for name in sorted(needed, key=lambda name: "text" in kind.field(name).types):
            taken = {id(facts) for facts, _ in self._chosen.values()}
            rest = [facts for facts in self._seen if facts.filled and id(facts) not in taken]
            fitting = [facts for facts in rest if self._fits(facts, kind.field(name))]
            if name in kind.match_keys and set(kind.match_keys) & set(self._chosen):
                continue
            if fitting:
                best = max(fitting, key=lambda facts: self._likeness(facts, name))
                self._choose(best, name, "A GUESS by its values")
                self.decide.append(f"does {_shown(best.name)} fill {name}? It is only a guess by its values.")
        lacking = [name for name in kind.required_fields if name not in self._chosen]
        if not set(kind.match_keys) & {*self._chosen, *lacking}:
            lacking.append(" or ".join(kind.match_keys))
        self.decide += [
            f"which column fills {name}? None looks like it, and it is needed." for name in lacking
        ]

    def _likeness(self, facts: ColumnFacts, name: str) -> tuple[bool, float, int]:
        """How well values suit a field that nothing names: keys differ, codes come again, dates are neither."""
        distinct = len(facts.distinct) if facts.distinct is not None else facts.filled
        other = any(rule[0] in ("date", "email", "phone") for rule in facts.rules())
        typed = "text" in self._kind.field(name).types and other
        return (
            not typed,
            round(facts.codes / facts.filled, 1),
            distinct if name in self._kind.match_keys else -distinct,
        )

    def _fits(self, facts: ColumnFacts, target: TargetField) -> bool:
        """Whether a field can take the values of a column."""
        if target.name in self._kind.match_keys and facts.longest > 255:
            return False
        if {"text", "code", "list"} & set(target.types) or not facts.filled:
            return True
        boolean = "boolean" in target.types and facts.booleans() is not None
        return boolean or any(rule[0] in target.types for rule in facts.rules())

    def _column(self, facts: ColumnFacts, target: TargetField | None, why: str) -> _Column:
        made = _Column()
        if target:
            made.keys["field"], made.why["field"] = target.name, why
        place = "header" if self._form.file.header else "position"
        made.keys[place] = facts.name if self._form.file.header else facts.place + 1
        if not target and self._kind.attributes and facts.filled:
            made.why[place] = f"fills no field; field: attributes.{_slug(facts.name)} would keep it"
        if FEW <= self.count == facts.filled:
            made.keys["required"], made.why["required"] = True, "never empty"
        elif target and target.name in self._kind.required_fields:
            empty = self.count - facts.filled
            made.keys["required"], made.why["required"] = (
                True,
                f"it must be; {empty:,} records have none that can be read",
            )
        self._type(made, facts, target)
        if facts.breaks:
            made.keys["multiline"] = True
        return made

    def _type(self, made: _Column, facts: ColumnFacts, target: TargetField | None) -> None:
        """Add the type of the column and what the type needs."""
        allowed = target.types if target else _UNMAPPED_TYPES
        if (target.types == ("list",)) if target else facts.separator(certain=True):
            self._list(made, facts, target)
        elif "boolean" in allowed and (words := facts.booleans()):
            made.keys |= {"type": "boolean", "words": {"true": [words[0]], "false": [words[1]]}}
            made.why["type"] = f"all {facts.filled:,} values"
        elif (rules := [rule for rule in facts.rules() if rule[0] in allowed]) and self._is_quantity(
            facts, rules[0]
        ):
            self._typed(made, facts, rules)
        elif {"text", "code"} & set(allowed):
            self._text(made, facts, target)
        else:  # the field takes one type, and there is no value to see
            made.keys["type"], made.why["type"] = (
                allowed[0],
                "the field takes no other; the file has no value",
            )
            if allowed[0] == "date":
                made.keys["format"] = "DD-MM-YYYY"
                self.decide.append(f"what form have the dates of {_shown(facts.name)}? The file has none.")

    def _list(self, made: _Column, facts: ColumnFacts, target: TargetField | None) -> None:
        separator = facts.separator(certain=False) or "|"
        lists = facts.items.get(separator, (0, ()))[0]
        made.keys |= {"type": "list", "separator": separator}
        made.why["type"] = f"{lists:,} of {facts.filled:,} values have several items"
        _add_length(made, facts.longest)
        if target and target.reference:
            made.keys["severity"], made.why["severity"] = (
                "warn",
                "codes that the domain does not have are left out",
            )

    def _is_quantity(self, facts: ColumnFacts, rule: Rule) -> bool:
        """Digits may be no quantity (007), or one of which nobody can tell how much it is."""
        if rule[0] != "number":
            return True
        if facts.ambiguous:
            name = _shown(facts.name)
            self.decide.append(f"is 1.234 in {name} above a thousand, or three decimals? It stays text.")
        return not facts.ambiguous and not facts.zeros

    def _typed(self, made: _Column, facts: ColumnFacts, rules: list[Rule]) -> None:
        """A type that most values have; the others are warned about, where the field allows it."""
        rule, name = rules[0], _shown(facts.name)
        made.keys["type"] = rule[0]
        option = {"date": "format", "phone": "region", "number": "decimal"}.get(rule[0])
        if option and rule[1]:
            made.keys[option] = rule[1]
        right, wrong = facts.counts[rule], facts.filled - facts.counts[rule]
        made.why["type"] = f"all {facts.filled:,} values"
        if wrong:
            made.why["type"] = (
                f"{right:,} of {facts.filled:,} values; not in {_records(facts.wrong[rule], wrong)}"
            )
        alike = [
            form for type, form in rules if type == "date" == rule[0] and facts.counts[type, form] == right
        ]
        if len(alike) > 1:
            made.why["format"] = f"or {' or '.join(alike[1:])}"
            self.decide.append(
                f"are the dates of {name} {' or '.join(alike)}? No value tells day from month."
            )
        if rule[0] == "phone" and rule[1] and not self._region:
            made.why["region"] = "A GUESS by the language of the header"
            self.decide.append(
                f"where are the numbers of {name} without a country code? {rule[1]} is a guess."
            )
        key = made.keys.get("field")
        strict = key in self._kind.required_fields or (key in self._kind.match_keys and rule[0] != "email")
        if wrong and not strict:
            made.keys["severity"], made.why["severity"] = (
                "warn",
                "wrong ones are left out, the record is taken",
            )

    def _text(self, made: _Column, facts: ColumnFacts, target: TargetField | None) -> None:
        keyed = target and target.name in (*self._kind.match_keys, *self._kind.required_fields)
        if target and keyed and "code" in target.types and facts.all_codes:
            made.keys["type"], made.why["type"] = "code", f"all {facts.filled:,} values"
        _add_length(made, facts.longest)
        distinct = len(facts.distinct) if facts.distinct is not None else facts.filled
        if distinct <= 10 <= facts.filled / 5:
            made.why["max_length"] += f"; the file has only {distinct} different values"


def _add_length(made: _Column, longest: int) -> None:
    """A limit with room for values half as long again."""
    made.keys["max_length"] = next((limit for limit in _LENGTHS if limit >= longest * 1.5), _LENGTHS[-1])
    made.why["max_length"] = f"the longest has {longest:,}"


def _records(numbers: list[int], count: int) -> str:
    if not numbers:
        return f"{count:,} records"
    more = f" and {count - len(numbers):,} more" if count > len(numbers) else ""
    return f"record{'s' * (count > 1)} {', '.join(f'{number:,}' for number in numbers)}{more}"


def _slug(name: str) -> str:
    """A name for an attribute, from that of a column."""
    slug = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
    return slug if re.match("[a-z]", slug) else "name"


# How it is written -------------------------------------------------------------------------------------------


def _written(path: Path, kind: Kind, form: Form, columns: list[_Column]) -> str:
    file = form.file.model_dump(exclude_none=True, exclude={"max_records"})
    if file["quote"] == '"':
        del file["quote"]
    title = " ".join(path.stem.replace("_", " ").split())
    lines = [f"kind: {kind.name}", f"title: {_scalar(title or 'Untitled')}", "", "file:"]
    lines += [_line("  ", key, value, form.why.get(key)) for key, value in file.items()]
    lines += ["", "columns:"]
    for column in columns:
        lines += [
            _line("    " if number else "  - ", key, value, column.why.get(key))
            for number, (key, value) in enumerate(column.keys.items())
        ]
    return "\n".join(lines) + "\n"


def _line(start: str, key: str, value: Any, why: str | None) -> str:
    return f"{start}{key}: {_scalar(value)}" + (f"  # {why}" if why else "")


def _scalar(value: Any) -> str:
    """A value as YAML on one line that reads back as it is, whatever a file has in its header."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_scalar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if (
        re.fullmatch(r"[^\W\d_](?:[\w .-]*\w)?", value)
        and value.isprintable()
        and yaml.safe_load(value) == value
    ):
        return value
    return yaml.safe_dump(value, default_style='"', allow_unicode=value.isprintable(), width=10**9).strip()


def _shown(name: str) -> str:
    """A name in a comment: short, on one line, and without what a terminal would obey."""
    cut = name[:60] + "…" * (len(name) > 60)
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut) + '"'


def _checked(
    body: str, path: Path, kind: Kind, kinds: Mapping[str, Kind], scratch: Path
) -> tuple[list[str], bool]:
    """What an import with this template would say of every record of the file."""
    try:
        template = parse_template(body, "proposal", kinds, "the proposal")
    except TemplateError as error:
        return [f"NOT A TEMPLATE YET: {error}"], False
    found: dict[tuple[str, str | None], list[int]] = {}
    counts: Counter[tuple[str, str | None]] = Counter()
    rejected = 0
    lists: dict[str, list[str]] = {column.reference: [] for column in template.columns if column.reference}
    with Records(path, template, scratch) as records:
        validation = Validation(template, kind, records, lists)
        for chunk in records.chunks(0, CHUNK):
            rejects = validation.verdicts(validation.judge(chunk)).rejects
            rejected += len(rejects)
            for number, reason in (
                (reject.record_no, reason) for reject in rejects for reason in reject.reasons
            ):
                counts[reason.rule, reason.column] += 1
                if len(numbers := found.setdefault((reason.rule, reason.column), [])) < NAMED_RECORDS:
                    numbers.append(number)
        total = records.count
    if not rejected:
        return [f"Checked: with this template all {total:,} records are taken."], True
    lines = [f"Checked: with this template {rejected:,} of {total:,} records are rejected:"]
    for (rule, column), count in counts.most_common(10):
        where = f" in {_shown(column)}" if column else ""
        lines.append(f"  {count:,} × {rule}{where}: {_records(found[rule, column], count)}")
    return lines, True
