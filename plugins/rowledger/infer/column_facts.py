"""One column of a sample file -> what its values have in common, gathered chunk by chunk with flat memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rowledger import values

MOST = 0.8  # of the values must obey a rule that is proposed; the others are warned about
DISTINCT = 1000
NAMED_RECORDS = 5
_FORMS = tuple(
    order.replace("-", mark)
    for order in ("DD-MM-YYYY", "MM-DD-YYYY", "YYYY-MM-DD")
    for mark in ("-", ".", "/", " ", "")
)
_BOOLEANS = (("true", "false"), ("yes", "no"), ("y", "n"), ("1", "0"), ("ja", "nein"), ("j", "n"), ("oui", "non"),
             ("o", "n"), ("ja", "nee"), ("wahr", "falsch"), ("vrai", "faux"), ("waar", "onwaar"), ("on", "off"))  # fmt: skip
_SEPARATORS = ("|", ";", ",", "/")

Rule = tuple[str, str]  # a type, and its format, region or decimal mark if it has one


@dataclass
class ColumnFacts:
    """Counts of a column, and per rule how many values obey it and the first records that do not."""

    name: str
    place: int
    filled: int = 0
    longest: int = 0
    breaks: bool = False
    codes: int = 0
    zeros: int = 0  # values such as 007
    marked: int = 0  # values such as 1.5
    thousands: int = 0  # and those of them such as 1.234
    distinct: set[str] | None = field(default_factory=set)
    counts: Counter[Rule] = field(default_factory=Counter)
    wrong: dict[Rule, list[int]] = field(default_factory=dict)
    items: dict[str, tuple[int, set[str]]] = field(default_factory=dict)

    def look(self, cells: Any, regions: Sequence[str | None]) -> None:
        """Count for a chunk; ``regions`` are those in which phone numbers without a country code may be."""
        import pyarrow as pa
        import pyarrow.compute as pc

        text, numbers = (
            values.clean(cells[f"c{self.place}"].combine_chunks()),
            cells["record_no"].combine_chunks(),
        )
        text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
        numbers, text = pc.filter(numbers, pc.is_valid(text)), pc.drop_null(text)
        if not len(text):
            return
        for rule, valid in self._judged(text, regions):
            self.counts[rule] += pc.sum(valid).as_py()
            wrong = self.wrong.setdefault(rule, [])
            wrong += pc.filter(numbers, pc.invert(valid)).to_pylist()[: NAMED_RECORDS - len(wrong)]
        self.filled += len(text)
        self.longest = max(self.longest, pc.max(pc.utf8_length(text)).as_py())
        self.breaks |= _matching(text, r"[\n\t]") > 0
        self.codes += _matching(text, rf"^(?:{values.CODE_PATTERN})$")
        self.zeros += _matching(text, "^0[0-9]")
        self.marked += _matching(text, "[.,]")
        self.thousands += _matching(text, "^[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}$")
        self._look_at_words(text)

    def _judged(self, text: Any, regions: Sequence[str | None]) -> Iterator[tuple[Rule, Any]]:
        """Every rule that may be one of the column, and which values obey it; costly ones only where they may."""
        import pyarrow.compute as pc

        def likely(rule: Rule, pattern: str) -> bool:
            enough = self.filled == 0 or self.counts[rule] >= MOST * self.filled / 2
            return enough and _matching(text, pattern) >= MOST * len(text) / 2

        for form in _FORMS:
            if likely(("date", form), "^[0-9]{2}"):
                yield ("date", form), pc.is_valid(values.as_dates(text, form))
        for mark in ".,":
            if likely(("number", mark), "^[+-]?[0-9]"):
                yield ("number", mark), pc.is_valid(values.as_numbers(text, mark))
        if likely(("email", ""), "@"):
            yield ("email", ""), pc.is_valid(values.as_emails(text))
        for region in regions:
            if likely(("phone", region or ""), "^[+0(][0-9 ()/.+-]{5,}$"):
                yield ("phone", region or ""), pc.is_valid(values.as_phones(text, region))

    def _look_at_words(self, text: Any) -> None:
        """Distinct values, as long as they are few; and distinct items, if the values are lists."""
        import pyarrow.compute as pc

        if self.distinct is not None:
            self.distinct.update(pc.unique(text).to_pylist())
            self.distinct = self.distinct if len(self.distinct) <= DISTINCT else None
        for separator in _SEPARATORS:
            lists, items = self.items.get(separator, (0, set()))
            if len(items) <= DISTINCT:
                cut = pc.split_pattern(text, separator)
                lists += pc.sum(pc.greater(pc.list_value_length(cut), 1)).as_py()
                items |= {item.strip() for item in pc.unique(cut.flatten()).to_pylist()} - {""}
                self.items[separator] = lists, items

    @property
    def all_codes(self) -> bool:
        """Whether there are values, and all are codes."""
        return self.codes == self.filled > 0

    @property
    def ambiguous(self) -> bool:
        """Whether nobody can tell if its numbers have thousands marks or three decimals."""
        return self.thousands == self.marked > 0

    def rules(self) -> list[Rule]:
        """The rules that most values obey, the best first."""
        kept = [rule for rule, count in self.counts.items() if count >= max(1, MOST * self.filled)]
        return sorted(kept, key=lambda rule: (-self.counts[rule], rule[0] in ("number", "phone")))

    def booleans(self) -> tuple[str, str] | None:
        """The words for true and for false, if the column has both and no others."""
        found = {value.casefold() for value in self.distinct or ()}
        return next((pair for pair in _BOOLEANS if found == set(pair)), None)

    def separator(self, *, certain: bool) -> str | None:
        """What stands between the items of lists; certain: only if the values can hardly be mere text."""
        for separator in _SEPARATORS[:2] if certain else _SEPARATORS:
            lists, items = self.items.get(separator, (0, set()))
            if lists and not certain:
                return separator
            if lists * 5 >= self.filled > 10 and len(items) * 3 <= lists:
                return separator
        return None


def _matching(text: Any, pattern: str) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(pc.match_substring_regex(text, pattern)).as_py() or 0)
