"""The beginning of a file is cut where a record ends, whatever its bytes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowledger import layouts, loading, templates
from rowledger.errors import FileError
from rowledger.heads import first_records
from rowledger.templates import ImportTemplate

ROOT = Path(__file__).parents[2]
HEADER = "Email,Street\n"


@pytest.fixture
def contacts() -> ImportTemplate:
    return templates.find_template(ROOT / "include" / "templates", "contacts", loading.kinds())


def encoded(template: ImportTemplate, encoding: str) -> ImportTemplate:
    return template.model_copy(update={"file": template.file.model_copy(update={"encoding": encoding})})


@pytest.mark.parametrize(
    ("head", "whole", "count", "first"),
    [
        ("a,1\nb,2\nc,3\n", False, 2, "a,1\nb,2\n"),
        ("a,1\nb,2\nc,3", False, 9, "a,1\nb,2\n"),
        ("a,1\nb,2\nc,3", True, 9, "a,1\nb,2\nc,3"),
        ("a,1\r\nb,2\r\nc", False, 9, "a,1\r\nb,2\r\n"),
        ("a,1\rb,2\rc", False, 9, "a,1\rb,2\r"),
        ('a,"x\ny"\nb,"x\n', False, 9, 'a,"x\ny"\n'),
        ('a,"x ""y"" z"\nb,"x', False, 9, 'a,"x ""y"" z"\n'),
        ("a,1\n\n\nb,2\n\nc,3\n", False, 2, "a,1\n\n\nb,2\n"),
        ("a,1\nb\0,2\nc,3\n", False, 2, "a,1\nb\0,2\n"),
        ("ä,1\nb,2\nc", False, 9, "ä,1\nb,2\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "windows-1252", "utf-16"])
def test_records_that_are_whole_stay_and_what_may_be_cut_off_goes(
    contacts: ImportTemplate, encoding: str, head: str, whole: bool, count: int, first: str
) -> None:
    codec = {"windows-1252": "cp1252"}.get(encoding, encoding)
    cut = first_records((HEADER + head).encode(codec), encoded(contacts, encoding), count, whole=whole)
    assert cut is not None
    assert cut.decode(codec) == HEADER + first


@pytest.mark.parametrize("size", range(30, 60))
def test_a_cut_anywhere_never_gives_a_part_of_a_record(contacts: ImportTemplate, size: int) -> None:
    records = [f'ä{number},"ö\n""{number}"""\r\n' for number in range(20)]
    content = (HEADER + "".join(records)).encode()
    cut = first_records(content[:size], contacts, 99, whole=False)
    wholes = {(HEADER + "".join(records[:number])).encode() for number in range(1, 20)}
    assert cut in wholes or (cut is None and size < len((HEADER + records[0] + records[1]).encode()))


def test_bytes_without_a_meaning_stay_as_they_are(contacts: ImportTemplate) -> None:
    head = HEADER.encode() + b"\xff\xfe,1\nb,2\nc"
    assert first_records(head, contacts, 9, whole=False) == head[:-1]


@pytest.mark.parametrize("head", ["", HEADER, HEADER + "a", HEADER + '"a,1\nb,2\nc,3\n'])
def test_there_is_no_beginning_if_no_record_comes_to_its_end(contacts: ImportTemplate, head: str) -> None:
    assert first_records(head.encode(), contacts, 9, whole=False) is None


@pytest.mark.parametrize("folder", ["contacts", "contracts", "result_codes_with_header"])
def test_a_header_is_the_same_whether_all_of_a_file_is_read_or_its_beginning(
    folder: str, tmp_path: Path
) -> None:
    template = templates.find_template(ROOT / "include" / "templates", folder, loading.kinds())
    compared = 0
    for path in sorted((ROOT / "tests" / "data" / folder).glob("*.csv")):
        try:
            wanted = whole_header(path, template, tmp_path)
        except FileError:
            continue
        assert layouts.header_of(path, template, tmp_path) == wanted, path.name
        compared += 1
    assert compared


def whole_header(path: Path, template: ImportTemplate, folder: Path) -> tuple[str, ...]:
    layouts.prepare(path, folder / "text", template)
    return layouts.read_layout(folder / "text", template).header or ()
