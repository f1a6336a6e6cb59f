"""File -> numbered records: every record gets its number and its very cells, however the file is cut."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rowledger import ledger, loading, templates
from rowledger.errors import FileError
from rowledger.layouts import REASON_HEADER, REASON_MARK, header_of
from rowledger.records_in import Records, raw_cells
from rowledger.templates import ImportTemplate

Found = list[tuple[int, object]]
Read = Callable[..., Records]
_numbers = itertools.count(1)


def positional(width: int, file: str = "", multiline: bool = True) -> ImportTemplate:
    """A template of ``width`` columns without a header, that lets line breaks and tabs pass."""
    columns = "".join(
        f"  - {{position: {place}, multiline: {str(multiline).lower()}"
        f"{', field: external_id, type: text' if place == 1 else ''}}}\n"
        for place in range(1, width + 1)
    )
    text = f"kind: contact\ntitle: x\nfile: {{header: false{file}}}\ncolumns:\n{columns}"
    return templates.parse_template(text, "positional", loading.kinds(), "positional.yml")


WITH_HEADER = templates.parse_template(
    "kind: contact\ntitle: x\ncolumns:\n"
    "  - {field: external_id, header: Number, aliases: [No.]}\n"
    "  - {field: last_name, header: Name, multiline: true}\n",
    "with_header", loading.kinds(), "with_header.yml",
)  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(content: bytes | str, template: ImportTemplate = WITH_HEADER) -> Records:
        path = tmp_path / f"file_{next(_numbers)}.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Records(path, template, tmp_path / "scratch")

    return read


def found(records: Records, size: int = 1000, after: int = 0) -> Found:
    """(record number, cells or rule words) of everything the chunks hold; checks that they join without a gap."""
    result: Found = []
    expected_first = after + 1
    for chunk in records.chunks(after, size):
        assert chunk.first == expected_first
        assert chunk.last >= chunk.first
        expected_first = chunk.last + 1
        rows = [(row.pop("record_no"), tuple(row.values())) for row in chunk.cells.to_pylist()]
        rejects = [(reject.record_no, [reason.rule for reason in reject.reasons]) for reject in chunk.rejects]
        here = sorted([*rows, *rejects], key=lambda one: one[0])
        assert [number for number, _ in here] == list(range(chunk.first, chunk.last + 1))
        result += here
    assert expected_first == records.count + 1
    return result


def cut_in_every_way(records: Records) -> Found:
    """What is found, after checking that it is the same for chunks of every size and from every record on."""
    whole = found(records)
    for size in range(1, len(whole) + 2):
        assert found(records, size) == whole, f"chunks of {size}"
    for after in range(len(whole) + 1):
        assert found(records, 2, after) == whole[after:], f"after record {after}"
    return whole


def test_numbers_count_records_not_lines(read: Read) -> None:
    with read('Number;Name\n1,a\n\n"2","b\nb"\n\n\n3,c\n'.replace(";", ",")) as records:
        assert records.count == 3
        assert records.blank_lines == 3
        assert cut_in_every_way(records) == [(1, ("1", "a")), (2, ("2", "b\nb")), (3, ("3", "c"))]


def test_rejects_keep_their_numbers_among_the_others(read: Read) -> None:
    lines = [
        "Number,Name",
        "",
        "1,a",
        "2",
        "3,c,x",
        '4,"d"d',
        "",
        "5,e",
        "6,f,x,y,z",
        "7,g",
        'x"8,h"',
        "9,i",
        "",
        "10",
    ]
    with read("\n".join(lines)) as records:
        assert cut_in_every_way(records) == [
            (1, ("1", "a")),
            (2, ["too_few_fields"]),
            (3, ["too_many_fields"]),
            (4, ["bad_quoting"]),
            (5, ("5", "e")),
            (6, ["too_many_fields"]),
            (7, ("7", "g")),
            (8, ('x"8', 'h"')),
            (9, ("9", "i")),
            (10, ["too_few_fields"]),
        ]


@pytest.mark.parametrize("first", ['"a"b,1', "1,2,3,4,5", "1"])
@pytest.mark.parametrize("last", ['"a"b,1', "1,2,3,4,5", "1"])
def test_rejects_at_both_ends_and_in_rows_are_numbered(read: Read, first: str, last: str) -> None:
    rules = {'"a"b,1': ["bad_quoting"], "1,2,3,4,5": ["too_many_fields"], "1": ["too_few_fields"]}
    with read(f"Number,Name\n{first}\n{first}\n1,a\n\n{last}\n{last}\n{last}\n") as records:
        assert cut_in_every_way(records) == [
            (1, rules[first]), (2, rules[first]), (3, ("1", "a")),
            (4, rules[last]), (5, rules[last]), (6, rules[last]),
        ]  # fmt: skip


def test_a_file_of_rejects_only_is_read_to_its_end(read: Read) -> None:
    with read('Number,Name\n1\n"a"b,2\n1,2,3\n') as records:
        assert cut_in_every_way(records) == [
            (1, ["too_few_fields"]),
            (2, ["bad_quoting"]),
            (3, ["too_many_fields"]),
        ]


@pytest.mark.parametrize("bad", ["1,2,3,4,5", '"a"b,1'])
@pytest.mark.parametrize("mix", ["{bad}", "1,a\n{bad}\n{bad}\n{bad}", "1,a\n1,a\n{bad}"])
def test_a_chunk_is_no_larger_for_the_records_that_cannot_be_cut(read: Read, bad: str, mix: str) -> None:
    lines = (mix.format(bad=bad) + "\n") * 40
    with read("Number,Name\n1,a\n" + lines + lines) as records:
        sizes = [chunk.records for chunk in records.chunks(0, 7)]
        assert sizes == [7] * (records.count // 7) + [records.count % 7] * (records.count % 7 > 0)
        assert records.count == 1 + 2 * lines.count("\n")


def test_rejects_keep_their_raw_cells(read: Read) -> None:
    with read('Number,Name\n1\n2,"b\nb",x\n"3"c,d\n') as records:
        (chunk,) = records.chunks(0, 100)
        assert [reject.raw for reject in chunk.rejects] == [("1",), ("2", "b\nb", "x"), ('"3"c,d',)]


@pytest.mark.parametrize("content", ["Number,Name\n", "Number,Name", "\n\nNumber,Name\n\n\n"])
def test_a_header_alone_is_a_file_of_no_records(read: Read, content: str) -> None:
    with read(content) as records:
        assert (records.count, found(records)) == (0, [])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_any_line_end_will_do_with_or_without_a_last_one(read: Read, end: str, last: bool) -> None:
    content = end.join(["Number,Name", "1,a", "", '2,"b', 'b"', "3,c"]) + (end if last else "")
    with read(content) as records:
        assert found(records) == [(1, ("1", "a")), (2, ("2", "b\nb")), (3, ("3", "c"))]
        assert records.blank_lines == 1


def test_a_blank_line_inside_a_cell_stays_there(read: Read) -> None:
    with read('Number,Name\n\n1,"a\n\n\nb\n"\n\n2,c\n') as records:
        assert cut_in_every_way(records) == [(1, ("1", "a\n\n\nb\n")), (2, ("2", "c"))]
        assert records.blank_lines == 2


def test_in_a_file_of_one_column_quotes_make_an_empty_record_of_a_blank_line(read: Read) -> None:
    with read('1\n\n""\n \n2\n', positional(1)) as records:
        assert cut_in_every_way(records) == [(1, ("1",)), (2, ("",)), (3, (" ",)), (4, ("2",))]


def test_values_that_other_readers_change_stay_as_they_are(read: Read) -> None:
    cells = [
        "NA",
        "NULL",
        "null",
        "\\N",
        "\\.",
        "None",
        "nan",
        "007",
        "1e5",
        " a ",
        "''",
        "#x",
        "true",
        "\u2028",
        "“a”",
    ]
    content = "".join(f"{number},{cell}\n" for number, cell in enumerate(cells, 1))
    with read(content, positional(2)) as records:
        assert found(records) == [(n, (str(n), cell)) for n, cell in enumerate(cells, 1)]


def test_control_characters_are_refused_where_the_template_does_not_allow_them(read: Read) -> None:
    content = 'Number,Name\n1,a\n2,"b\tb"\n3,"c\nc"\n4,d\x07\n5,e\x00\n6,f\x85\n"7\n",g\n8,\x7f\n9,ü\n'
    with read(content) as records:
        assert cut_in_every_way(records) == [
            (1, ("1", "a")), (2, ("2", "b\tb")), (3, ("3", "c\nc")), (4, ["control_char"]), (5, ["control_char"]),
            (6, ["control_char"]), (7, ["control_char"]), (8, ["control_char"]), (9, ("9", "ü")),
        ]  # fmt: skip


def test_the_header_once_more_is_no_record(read: Read) -> None:
    with read("Number,Name\n1,a\nNumber,Name\n2,b\n") as records:
        assert cut_in_every_way(records) == [(1, ("1", "a")), (2, ["repeated_header"]), (3, ("2", "b"))]


def test_an_open_quote_is_named_with_the_record_it_opens_in(read: Read) -> None:
    with pytest.raises(FileError, match="record 3") as caught:
        read('Number,Name\n1,a\n\n2\n3,"c\n4,d\n5,e\n')
    assert caught.value.rule == "unterminated_quote"


def test_a_record_is_kept_once_however_many_fields_it_has_too_many(read: Read) -> None:
    with read("Number,Name\n" + f"1,a{',x' * 500}\n" * 2 + '"a"b,1\n') as records:
        assert records._query("SELECT line FROM bad") == [(2,), (3,), (4,)]
        assert [rules for _, rules in found(records)] == [["too_many_fields"]] * 2 + [["bad_quoting"]]


@pytest.mark.parametrize(("records_in_file", "size"), [(1_000, 60_000), (70, 900_000)])
def test_long_records_come_back_whole(read: Read, records_in_file: int, size: int) -> None:
    def cell(number: int) -> str:
        line = f"{number}" * 300 + "\n"
        return line * (size // len(line))

    content = "".join(f'{number},"{cell(number)}"\n' for number in range(1, records_in_file + 1))
    with read(f"Number,Name\n{content}0,short\n") as records:
        assert records.count == records_in_file + 1
        number = 0
        for chunk in records.chunks(0, 50_000):
            assert chunk.cells.nbytes < 60_000_000
            for row in chunk.cells.to_pylist():
                number += 1
                expected = (f"{number}", cell(number)) if number <= records_in_file else ("0", "short")
                assert row["record_no"] == number
                assert (row["c0"], row["c1"]) == expected
        assert number == records.count


def test_too_many_long_records_in_a_row_are_for_the_sender_to_mend(
    read: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rowledger.records_in.ROOMS", ((64, 122_880), (64, 2_048)))
    with pytest.raises(FileError, match="at most 100 MB each") as caught:
        read("Number,Name\n" + f"1,{'x' * 60_000}\n" * 1_000)
    assert caught.value.rule == "records_too_long"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_nothing_is_left_in_the_scratch_folder(read: Read, tmp_path: Path) -> None:
    with read("Number,Name\n1,a\n") as records:
        found(records)
        assert list((tmp_path / "scratch").iterdir())
    with pytest.raises(FileError):
        read("\x1f\x8b")
    with pytest.raises(FileError):
        read('Number,Name\n1,"a\n')
    assert list((tmp_path / "scratch").iterdir()) == []


def test_columns_are_found_by_header_or_alias_in_any_order(read: Read) -> None:
    with read("\ufeff name ,Extra,NO.\na,x,1\n") as records:
        assert records.layout.places == (2, 0)
        assert records.layout.names == ("NO.", "name")
        assert [warning.rule for warning in records.warnings] == ["unknown_column"]
        assert found(records) == [(1, ("a", "x", "1"))]


def test_the_header_can_be_read_alone_as_it_stands_there(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes('\r\n"Number" ,"Na\nme",Name\r\n1,2,3\r\n'.encode("utf-8-sig"))
    assert header_of(path, WITH_HEADER, tmp_path / "scratch") == ("Number ", "Na\nme", "Name")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_raw_cells_of_chosen_records(read: Read) -> None:
    with read("Number,Name\n1,a\n2,b\n3,c\n") as records:
        (chunk,) = records.chunks(0, 100)
        assert raw_cells(chunk, [3, 1, 99]) == [(1, ("1", "a")), (3, ("3", "c"))]
        assert raw_cells(chunk, []) == []


FORMULAS = ["=1+1", "+49", "-1", "@x", "＝1", "'", "'=1", "''", "'text", "text", "", "\t=1", "\n=1"]


def test_reasons_and_apostrophes_of_our_own_export_are_taken_back(read: Read) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(["Number", "Name", REASON_HEADER])
    writer.writerows(
        [str(n), ledger.neutral(cell), f"{REASON_MARK}wrong"] for n, cell in enumerate(FORMULAS, 1)
    )
    with read(out.getvalue()) as records:
        assert [cells[:2] for _, cells in found(records)] == [(str(n), c) for n, c in enumerate(FORMULAS, 1)]  # type: ignore[index]
        assert records.warnings == ()


def test_without_a_header_only_records_that_carry_a_reason_get_their_cells_back(read: Read) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows(
        [str(n), ledger.neutral(cell), f"{REASON_MARK}wrong"] for n, cell in enumerate(FORMULAS, 1)
    )
    writer.writerow(["99", "'=1"])
    writer.writerow(["100", "'=1", "no reason of ours"])
    with read(out.getvalue(), positional(2)) as records:
        *exported, mended, wrong = cut_in_every_way(records)
        assert exported == [(n, (str(n), cell)) for n, cell in enumerate(FORMULAS, 1)]
        assert mended == (len(FORMULAS) + 1, ("99", "'=1"))
        assert wrong == (len(FORMULAS) + 2, ["too_many_fields"])


def test_in_a_file_with_a_header_that_is_no_export_apostrophes_stay(read: Read) -> None:
    with read("Number,Name\n1,'=1\n") as records:
        assert found(records) == [(1, ("1", "'=1"))]


text_of_a_cell = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *"ab,;|\t\"'\n\r =\\.",
                "\r\n",
                "é",
                "e\u0301",
                "👩‍👧",
                "\u2028",
                "\ufeff",
                "\u200b",
                "\U0010ffff",
            ]
        ),
        st.characters(exclude_categories=("Cc", "Cs")),
    ),
    max_size=6,
).map("".join)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, ImportTemplate, list[tuple[str, ...]]]:
    """The bytes of a file, its template, and its cells as written."""
    width = draw(st.integers(1, 4))
    table = draw(st.lists(st.tuples(*[text_of_a_cell] * width), min_size=1, max_size=7))
    table[0] = (table[0][0].lstrip("\ufeff"), *table[0][1:])  # at the very beginning it is a byte-order mark
    delimiter, quote = draw(st.sampled_from([",", ";", "\t", "|"])), draw(st.sampled_from(['"', "'"]))
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    end, last_end = draw(st.sampled_from(["\n", "\r\n"])), draw(st.booleans())
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    lines = []
    for cells in table:
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, quotechar=quote, quoting=quoting).writerow(cells)
        lines += [""] * draw(st.sampled_from([0, 0, 0, 1, 3]))
        lines.append(out.getvalue().removesuffix("\r\n"))
    content = end.join(lines) + (end if last_end else "")
    name = "utf-16" if encoding == "utf-16" else "utf-8"
    file = f", delimiter: {'TAB' if delimiter == chr(9) else repr(delimiter)}, quote: QUOTE, encoding: {name}"
    file = file.replace("TAB", '"\\t"').replace("QUOTE", repr(quote))
    return content.encode(encoding), positional(width, file), table


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files(), st.integers(1, 8), st.integers(0, 7))
def test_the_reader_gives_back_exactly_the_cells_that_were_written(
    read: Read, file: tuple[bytes, ImportTemplate, list[tuple[str, ...]]], size: int, after: int
) -> None:
    content, template, table = file
    as_read = [tuple(cell.replace("\r\n", "\n").replace("\r", "\n") for cell in cells) for cells in table]
    with read(content, template) as records:
        assert records.count == len(table)
        assert found(records) == list(enumerate(as_read, 1))
        assert found(records, size) == list(enumerate(as_read, 1))
        after = min(after, len(table))
        assert found(records, size, after) == list(enumerate(as_read, 1))[after:]


def test_what_a_killed_worker_left_is_swept_away_and_what_another_uses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowledger.records_in.SWEEP_SECONDS", -1)
    scratch, file = tmp_path / "scratch", tmp_path / "file.csv"
    file.write_text("Last name,Email\nA,b@c.de\n")
    left = scratch / "records-left"
    left.mkdir(parents=True)
    template = templates.read_template(Path("include/templates/contacts.yml"), loading.kinds())
    with Records(file, template, scratch) as in_use, Records(file, template, scratch):
        assert not left.exists()
        assert in_use.count == sum(len(chunk.cells) for chunk in in_use.chunks(0, 10)) == 1
    assert list(scratch.iterdir()) == []
