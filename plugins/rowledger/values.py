"""The rules of single values, on whole columns: what a cell means as text, date, address, phone, number, boolean, list.

In and out: Arrow arrays of one length; a value that does not obey its type comes out null. The expectations
judge with these functions and staging stores what they return, so a value that passed is a value that loads.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

FIRST_YEAR, LAST_YEAR = 1900, 2100

CODE_PATTERN = r"[!-~]+"  # printable ASCII without spaces: no look-alikes, no invisible characters
_SIMPLE_LOCAL = r"^(?P<local>[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*)@(?P<domain>[^@\s]+)$"
_E164 = r"^\+[1-9][0-9]{7,14}$"
_NUMBER = r"^(?P<sign>[+-]?)(?P<whole>[0-9]{1,%d})(?:%s(?P<part>[0-9]{1,%d}))?$"
WHOLE_DIGITS, DECIMALS = 20, 10  # no number can grow beyond what a program can add up
_PHONE_CHARACTERS = r"^\+?[0-9 ()/.\-]+$"


def clean(cells: Any) -> Any:
    """Cells -> text in Unicode form NFC without outer white space; an empty cell is null (absent)."""
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(cells)
    if not pc.all(pc.string_is_ascii(text), min_count=0).as_py():
        text = pc.utf8_normalize(text, form="NFC")
    empty = pc.equal(text, "")
    return pc.if_else(empty, None, text) if pc.any(empty, min_count=0).as_py() else text


def clean_list(text: Any, separator: str) -> Any:
    """Clean text -> the same without blank items and exact repeats, "a | b||a" -> "a|b"; null if no item is left."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = as_lists(text, separator)
    items = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    parents = pc.list_parent_indices(lists).to_numpy()
    codes = pc.dictionary_encode(items).indices.to_numpy()
    _, firsts = np.unique(parents * (len(items) + 1) + codes, return_index=True)
    kept = np.zeros(len(items), dtype=bool)
    kept[firsts] = True
    kept &= pc.not_equal(items, "").to_numpy(zero_copy_only=False)
    return pc.binary_join(keep_items(pa.ListArray.from_arrays(lists.offsets, items), kept), separator)


def as_lists(text: Any, separator: str) -> Any:
    """Text -> its items."""
    import pyarrow.compute as pc

    return pc.split_pattern(text, separator)


def keep_items(lists: Any, kept: Any) -> Any:
    """The lists with those of their items that are kept (one boolean per item of all lists); null if none is left."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    parents = pc.list_parent_indices(lists).to_numpy()[kept]
    counts = np.bincount(parents, minlength=len(lists))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    items = pc.filter(pc.list_flatten(lists), pa.array(kept))
    return pa.ListArray.from_arrays(pa.array(offsets), items, mask=pa.array(counts == 0))


def right_items(
    lists: Any,
    *,
    min_value: int | None = None,
    max_value: int | None = None,
    regex: str | None = None,
    value_set: list[str] | None = None,
) -> Any:
    """Which items of all lists obey a rule of length, form or set: one boolean per item, as numpy has them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    items = pc.list_flatten(lists)
    right = np.ones(len(items), dtype=bool)
    if min_value is not None:
        right &= pc.greater_equal(pc.utf8_length(items), min_value).to_numpy(zero_copy_only=False)
    if max_value is not None:
        right &= pc.less_equal(pc.utf8_length(items), max_value).to_numpy(zero_copy_only=False)
    if regex is not None:
        right &= pc.match_substring_regex(items, regex).to_numpy(zero_copy_only=False)
    if value_set is not None:
        right &= pc.is_in(items, value_set=pa.array(value_set, pa.string())).to_numpy(zero_copy_only=False)
    return right


def as_numbers(text: Any, decimal: str) -> Any:
    """Text -> the number as text in its shortest form, "+01,50" -> "1.5"; without thousands marks and exponents.

    As text, because it is exact and PostgreSQL reads it as the numeric that it is.
    """
    import pyarrow.compute as pc

    form = _NUMBER % (WHOLE_DIGITS, f"[{decimal}]", DECIMALS)
    parts = pc.extract_regex(text, form)
    whole = pc.utf8_ltrim(pc.struct_field(parts, "whole"), "0")
    part = pc.utf8_rtrim(pc.struct_field(parts, "part"), "0")
    dotted = pc.if_else(pc.equal(part, ""), "", pc.binary_join_element_wise(".", part, ""))
    digits = pc.binary_join_element_wise(pc.if_else(pc.equal(whole, ""), "0", whole), dotted, "")
    negative = pc.and_(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.not_equal(digits, "0"))
    return pc.if_else(negative, pc.binary_join_element_wise("-", digits, ""), digits)


def as_booleans(text: Any, true: Sequence[str], false: Sequence[str]) -> Any:
    """Text -> boolean, by the words for true and false; case does not count."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    meaning = {word.casefold(): True for word in true} | {word.casefold(): False for word in false}
    known = pc.dictionary_encode(text)
    booleans = [meaning.get(word.casefold()) for word in known.dictionary.to_pylist()]
    return pc.take(pa.array(booleans, pa.bool_()), known.indices)


def as_dates(text: Any, format: str) -> Any:
    """Text -> date32, strictly in a form such as DD-MM-YYYY, years 1900 to 2100.

    Not by strptime: Arrow's reads 31-02 as 03-03 and 1-2 as 01-02.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    digits = re.sub("DD|MM|YYYY", lambda part: f"[0-9]{{{len(part[0])}}}", format.replace(".", "[.]"))
    text = pc.if_else(pc.match_substring_regex(text, f"^{digits}$"), text, None)

    def number(part: str) -> Any:
        start = format.index(part)
        cut = pc.utf8_slice_codeunits(text, start, start + len(part))
        return pc.fill_null(cut.cast(pa.int32()), 0).to_numpy(zero_copy_only=False).astype(np.int64)

    year, month, day = number("YYYY"), number("MM"), number("DD")
    first = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1)
    real = (month >= 1) & (month <= 12) & (date.astype("datetime64[M]") == first)
    real &= (year >= FIRST_YEAR) & (year <= LAST_YEAR)
    return pa.array(date, mask=~real)


def as_emails(text: Any) -> Any:
    """Text -> address as email-validator writes it: domain in lower case, local part as given (INFO@ is info@).

    The library judges each distinct domain once; it judges whole addresses only where they are not plain ASCII: the
    limit of 254 is for the ASCII form, which only the library knows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    parts = pc.extract_regex(text, _SIMPLE_LOCAL)
    local, domain = pc.struct_field(parts, "local"), pc.struct_field(parts, "domain")
    short = pc.and_(pc.less_equal(pc.utf8_length(local), 64), pc.less_equal(pc.binary_length(text), 254))
    plain = pc.and_(pc.fill_null(pc.and_(short, pc.string_is_ascii(text)), False), pc.invert(_is_role(local)))
    known = pc.dictionary_encode(pc.if_else(plain, domain, None))
    verdicts = pa.array([_domain(name) for name in known.dictionary.to_pylist()], pa.string())
    joined = pc.binary_join_element_wise(local, pc.take(verdicts, known.indices), "@")
    joined = pc.if_else(pc.less_equal(pc.binary_length(joined), 254), joined, None)
    odd = pc.and_(pc.is_valid(text), pc.invert(plain))
    return _others(text, odd, joined, _email)


def _is_role(local: Any) -> Any:
    """Local parts such as INFO, which are the same in any case and which the library writes in lower case."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES

    return pc.is_in(pc.ascii_lower(local), value_set=pa.array(CASE_INSENSITIVE_MAILBOX_NAMES, pa.string()))


def as_phones(text: Any, region: str | None) -> Any:
    """Text -> E.164 as phonenumbers writes it; ``region`` is where a number without a country code is.

    A number that is in E.164 already, of a length that its country has and without a prefix that is dialled only
    within the country (+49 0…), is what the library would write; the library reads all others.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    e164 = pc.if_else(pc.match_substring_regex(text, _E164), text, None)
    starts = pc.unique(pc.utf8_slice_codeunits(e164, 1, 4)).to_pylist()
    plans = sorted({plan for start in starts if start and (plan := _numbering_plan(start))})
    possible = "|".join(f"{code}(?:{lengths})" for code, lengths, _ in plans)
    prefixed = "|".join(f"{code}(?:{prefix})" for code, _, prefix in plans if prefix)
    plain = pc.match_substring_regex(e164, rf"^\+(?:{possible})$")
    if prefixed:
        plain = pc.and_not(plain, pc.match_substring_regex(e164, rf"^\+(?:{prefixed})"))
    plain = pc.fill_null(plain, False)
    odd = pc.and_(pc.is_valid(text), pc.invert(plain))
    readable = pc.and_(odd, pc.fill_null(pc.match_substring_regex(text, _PHONE_CHARACTERS), False))
    return _others(text, readable, pc.if_else(plain, text, None), lambda value: _phone(value, region))


def _others(text: Any, chosen: Any, result: Any, judge: Any) -> Any:
    """``result`` with the chosen values replaced by the judge's word on each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(chosen, min_count=0).as_py():
        return result
    judged = pa.array([judge(value) for value in pc.filter(text, chosen).to_pylist()], pa.string())
    return pc.replace_with_mask(result, chosen, judged)


@functools.lru_cache(maxsize=100_000)
def _domain(name: str | None) -> str | None:
    address = _email(f"a@{name}")
    return address[2:] if address else None


def _email(address: str) -> str | None:
    from email_validator import EmailNotValidError, validate_email

    try:
        return str(validate_email(address, check_deliverability=False).normalized)
    except EmailNotValidError:
        return None


@functools.cache
def _numbering_plan(start: str) -> tuple[str, str, str] | None:
    """Of the country whose code begins these digits: the code, the lengths its numbers have and its own prefixes,
    both as regular expressions."""
    import phonenumbers

    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE
    code = next((start[:n] for n in (1, 2, 3) if int(start[:n]) in regions), None)
    if code is None:
        return None
    plan: Any = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(
        int(code), regions[int(code)][0]
    )
    lengths = "|".join(f"[0-9]{{{length}}}" for length in plan.general_desc.possible_length)
    return code, lengths, plan.national_prefix_for_parsing or ""


def _phone(number: str, region: str | None) -> str | None:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    # "12" is possible within a town; from outside nobody can dial it.
    if phonenumbers.is_possible_number_with_reason(parsed) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
