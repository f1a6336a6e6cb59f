"""Places behind a file system of fsspec: one that renames, and one that copies as object storage does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from rowledger.errors import FileChanged, PlaceTrouble
from rowledger.feeds.places import Found
from rowledger.feeds.stores import Store


@pytest.fixture(params=["renaming", "copying"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "renaming":
        fs: Any = LocalFileSystem()
        folder = str(tmp_path / "place")
    else:
        fs, folder = MemoryFileSystem(), f"/{tmp_path.name}/place"
    fs.makedirs(folder)
    yield Store(
        fs, folder, "s3://connection@bucket/place", "file" if request.param == "renaming" else "memory"
    )
    fs.rm(folder, recursive=True)


def write(store: Store, name: str, content: bytes = b"a,b\n") -> None:
    with store._fs.open(f"{store._folder}/{name}", "wb") as file:
        file.write(content)


def put(store: Store, name: str, content: bytes = b"a,b\n") -> Found:
    write(store, name, content)
    return next(found for found in store.files("*").files if found.name == name)


def names(store: Store, folder: str = "") -> list[str]:
    store._fs.invalidate_cache()
    found = store._fs.ls(f"{store._folder}/{folder}".rstrip("/"), detail=False)
    return sorted(str(name).rpartition("/")[2] for name in found)


def test_files_of_the_pattern_are_listed_and_folders_are_not(store: Store) -> None:
    for name in ("a.csv", "b.csv.part", ".c.csv", "d.txt"):
        write(store, name)
    store._fs.makedirs(f"{store._folder}/e.csv")
    write(store, "e.csv/inner.csv")
    listing = store.files("*.csv")
    assert [(found.name, found.bytes) for found in listing.files] == [("a.csv", 4)]
    assert listing.oddities == ['"e.csv" is a folder and is left alone.']


def test_a_file_is_read_and_moved_and_overwrites_nothing(store: Store) -> None:
    found = put(store, "a.csv", b"x" * 3_000_000)
    assert b"".join(store.reading(found)) == b"x" * 3_000_000
    assert store.move(found, "taken", 1) == "a.csv"
    assert store.move(put(store, "a.csv", b"second"), "taken", 17) == "a.17.csv"
    assert names(store, "taken") == ["a.17.csv", "a.csv"]
    assert names(store) == ["taken"]


def test_a_file_is_deleted_and_one_that_is_gone_is_no_trouble(store: Store) -> None:
    found = put(store, "a.csv")
    store.delete(found, 1)
    store.delete(found, 1)
    assert names(store) == []


@pytest.mark.parametrize("act", ["reading", "move", "delete"])
def test_a_file_that_is_not_the_one_that_was_seen_is_left_alone(store: Store, act: str) -> None:
    found = put(store, "a.csv")
    write(store, "a.csv", b"other content\n")
    acts: dict[str, Callable[[], object]] = {
        "reading": lambda: list(store.reading(found)),
        "move": lambda: store.move(found, "taken", 1),
        "delete": lambda: store.delete(found, 1),
    }
    with pytest.raises(FileChanged):
        acts[act]()
    assert "a.csv" in names(store)


def test_a_file_that_changes_while_it_is_read_is_noticed(store: Store) -> None:
    blocks = store.reading(put(store, "a.csv", b"x" * 3_000_000))
    next(blocks)
    write(store, "a.csv", b"other content\n")
    with pytest.raises((FileChanged, PlaceTrouble)):
        list(blocks)


def test_an_object_replaced_while_it_is_copied_is_not_removed() -> None:
    class Late(MemoryFileSystem):
        """Somebody writes right after the copy."""

        def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
            super().cp_file(path1, path2, **kwargs)
            with self.open(path1, "wb") as file:
                file.write(b"the next file\n")

    fs = Late()
    fs.makedirs("/late")
    store = Store(fs, "/late", "s3://late", "s3")
    found = put(store, "a.csv")
    with pytest.raises(FileChanged):
        store.move(found, "taken", 1)
    assert fs.cat("/late/a.csv") == b"the next file\n"
    fs.rm("/late", recursive=True)


def test_a_file_replaced_right_before_it_is_renamed_is_put_back(tmp_path: Path) -> None:
    class Late(LocalFileSystem):
        """Somebody renames another file into place right before."""

        def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
            if Path(path1).name == "a.csv":
                Path(path1).write_bytes(b"the next file\n")
            super().mv(path1, path2, **kwargs)

    store = Store(Late(), str(tmp_path), "sftp://late", "file")
    found = put(store, "a.csv")
    with pytest.raises(FileChanged):
        store.move(found, "taken", 1)
    assert (tmp_path / "a.csv").read_bytes() == b"the next file\n"
    assert list((tmp_path / "taken").iterdir()) == []


def test_a_copy_whose_original_was_not_removed_is_not_copied_under_another_name() -> None:
    fs = MemoryFileSystem()
    fs.makedirs("/copied/taken")
    store = Store(fs, "/copied", "s3://copied", "s3")
    found = put(store, "a.csv", b"x" * 3_000_000)
    write(store, "taken/a.csv", b"x" * 3_000_000)
    assert store.move(found, "taken", 1) == "a.csv"
    assert names(store, "taken") == ["a.csv"]
    fs.rm("/copied", recursive=True)


def test_what_a_store_says_is_told_in_a_sentence(tmp_path: Path) -> None:
    store = Store(LocalFileSystem(), str(tmp_path / "none"), "sftp://partner@/out", "file")
    with pytest.raises(PlaceTrouble, match=r"^sftp://partner@/out is not there\.$"):
        store.files("*")


def test_links_in_a_store_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    place = tmp_path / "place"
    place.mkdir()
    (place / "link.csv").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", place / "hard.csv")
    listing = Store(LocalFileSystem(), str(place), "x", "file").files("*.csv")
    assert listing.files == []
    assert len(listing.oddities) == 2
