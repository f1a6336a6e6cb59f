"""Bytes in: kept once, whole, under their hash; what is no file is refused."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path

import pytest

from rowledger import uploads
from rowledger.errors import SetupError
from rowledger.uploads import Upload, keep, keep_file


class Broken(io.RawIOBase):
    """A stream that breaks off after its first block."""

    blocks = 0

    def read(self, size: int = -1) -> bytes:
        self.blocks += 1
        if self.blocks > 1:
            raise OSError(5, "Input/output error")
        return b"x" * uploads.BLOCK_BYTES


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "size", [0, 1, uploads.BLOCK_BYTES, uploads.BLOCK_BYTES + 1, 3 * uploads.BLOCK_BYTES]
)
def test_a_file_is_kept_whole_under_its_hash(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "in.csv").write_bytes(content)
    upload = keep_file(tmp_path / "in.csv", tmp_path / "kept")
    digest = hashlib.sha256(content).hexdigest()
    assert upload == Upload("in.csv", str(tmp_path / "kept" / digest[:2] / digest), size, digest)
    assert Path(upload.address).read_bytes() == content
    assert left(tmp_path / "kept") == [f"{digest[:2]}/{digest}"]


def test_the_same_bytes_are_kept_once_under_any_name(tmp_path: Path) -> None:
    first = keep(io.BytesIO(b"a;b\n"), "first.csv", tmp_path)
    second = keep(io.BytesIO(b"a;b\n"), "second.csv", tmp_path)
    assert (first.address, second.file_name) == (second.address, "second.csv")
    assert len(left(tmp_path)) == 1


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"could not be kept in .* \(Input/output error\)"):
        keep(Broken(), "broken.csv", tmp_path / "kept")  # type: ignore[arg-type]
    assert left(tmp_path / "kept") == []


def test_an_interrupted_upload_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(Interrupted(), "broken.csv", tmp_path / "kept")  # type: ignore[arg-type]
    assert left(tmp_path / "kept") == []


def test_a_folder_that_cannot_be_written_is_a_fault_of_the_set_up(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    with pytest.raises(SetupError, match="could not be kept in"):
        keep(io.BytesIO(b"x"), "x.csv", tmp_path / "kept")


def test_links_devices_pipes_and_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_bytes(b"x")
    (tmp_path / "link.csv").symlink_to(tmp_path / "file.csv")
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")  # opening it must not wait for a writer
    for path in ("link.csv", "folder.csv", "pipe.csv", "missing.csv", "/dev/null"):
        with pytest.raises(SetupError, match=r"cannot be read|is not a regular file"):
            keep_file(tmp_path / path, tmp_path / "kept")
    assert left(tmp_path / "kept") == []


def test_what_was_uploaded_is_not_for_everybody_to_read(tmp_path: Path) -> None:
    kept = keep(io.BytesIO(b"personal data"), "x.csv", tmp_path)
    assert stat.S_IMODE(Path(kept.address).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"contacts_may.csv", "contacts_may.csv"),
        ("köln ü 例.csv".encode(), "köln ü 例.csv"),
        (b"caf\xe9.csv", "caf\\udce9.csv"),
        (b"a\nb\x1b[2J.csv", "a\\x0ab\\x1b[2J.csv"),
        ("a\u202egnp.csv".encode(), "a\\x202egnp.csv"),
        (b"<script>'\";%_.csv", "<script>'\";%_.csv"),
    ],
)
def test_any_file_name_can_be_stored_and_shown(tmp_path: Path, name: bytes, shown: str) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"x")
    upload = keep_file(path, tmp_path / "kept")
    assert upload.file_name == shown
    assert upload.file_name.encode("utf-8")


def test_a_long_file_name_keeps_its_end(tmp_path: Path) -> None:
    assert keep(io.BytesIO(b"x"), "x" * 1000 + ".csv", tmp_path).file_name == "x" * 251 + ".csv"


def test_a_file_in_a_folder_is_read_where_it_is(tmp_path: Path) -> None:
    kept = keep(io.BytesIO(b"x"), "x.csv", tmp_path / "kept")
    with uploads.fetched(kept.address, kept.sha256, tmp_path / "kept", tmp_path / "scratch") as path:
        assert str(path) == kept.address
    assert not (tmp_path / "scratch").exists()


def test_a_file_of_an_object_store_is_not_looked_for_in_a_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(
            SetupError, match="s3://bucket/x is kept in object storage; ROWLEDGER_UPLOADS does not say"
        ),
        uploads.fetched("s3://bucket/x", "0" * 64, tmp_path, tmp_path / "scratch"),
    ):
        pass
