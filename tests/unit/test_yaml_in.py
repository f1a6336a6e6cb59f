"""YAML that people wrote: what is not taken is told with its line, to stand behind the name of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowledger import yaml_in
from rowledger.yaml_in import WrongYaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", ', line 3: "a" is given twice; keep one.'),
        ("- b: [{c: 1, 'c': 2}]", ', line 1: "c" is given twice; keep one.'),
        ("a: &a [x]\nb: *a", ", line 2: aliases (*) are not allowed; write it out."),
        ("x:\n  " + "[" * 50_000, ", line 2: is nested too deep; 20 levels are allowed."),
        ("a: [x}", ", line 1, column 6: is not valid YAML ("),
        ("a: 1\n---\nb: 2", ", line 2, column 1: is not valid YAML (but found another document)."),
        ("a: !!python/object:os.system {}", ", line 1, column 4: is not valid YAML ("),
        ('a: "\\ud800"', ", line 1, column 7: is not valid YAML ("),
        ("? [a]\n: b", ", line 1, column 3: is not valid YAML ("),
        ("a\0", ": is not valid YAML (control characters are not allowed)."),
        ("a: 2026-99-99", ": is not valid YAML (month must be in 1..12"),
    ],
)
def test_what_is_not_taken_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(WrongYaml) as error:
        yaml_in.data(yaml_in.tree(text))
    assert str(error.value).startswith(said)


def test_what_is_nested_as_deep_as_allowed_is_taken() -> None:
    deep = "[" * yaml_in.MAX_DEPTH + "]" * yaml_in.MAX_DEPTH
    assert str(yaml_in.data(yaml_in.tree(deep))) == deep
    with pytest.raises(WrongYaml, match="nested too deep"):
        yaml_in.tree(f"[{deep}]")


def test_one_key_in_several_mappings_is_no_fault() -> None:
    assert yaml_in.data(yaml_in.tree("[{a: 1, b: {a: 2}}, {a: 3}]")) == [{"a": 1, "b": {"a": 2}}, {"a": 3}]


def test_a_text_without_a_document_is_nothing() -> None:
    assert yaml_in.data(yaml_in.tree("# only this\n")) is None


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yml"
    with pytest.raises(WrongYaml, match=r"^: cannot be read \(No such file or directory\)\.$"):
        yaml_in.text_of(path)
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(WrongYaml, match=r"^: is not UTF-8 at byte 3; save it as UTF-8\.$"):
        yaml_in.text_of(path)
