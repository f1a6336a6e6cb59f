"""Where the embedded server lets itself be reached: it asks nobody for a password."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rowledger import server


@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")
@pytest.mark.parametrize("data", ["My Projects/postgres", "Größe/postgres"])
def test_the_socket_of_a_folder_that_cannot_be_named_is_for_its_owner_alone(
    data: str, tmp_path: Path
) -> None:
    folder = server._socket_folder(tmp_path / data, tmp_path / "runtime")
    assert folder.parent == tmp_path / "runtime"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)  # as an earlier version made it
    assert server._socket_folder(tmp_path / data, tmp_path / "runtime") == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
