"""The command line ``rowledger``: for people (tables, sentences) and for scripts (``--json``, exit codes).

Exit codes: 0 done; 1 a check or a batch failed; 2 the call or the set-up is wrong; 3 the file is wrong; 4 another
worker took the batch over, or somebody stopped it; 5 the same file was uploaded before; 75 the database is not
available, try again.
"""

from __future__ import annotations

import os
import sys

# Importing a module adds its commands; the help lists them in this order.
from rowledger.cli import imports, control, roll_back, dry_run, parked, contracts, contacts, erasure  # noqa: F401 # isort: skip
from rowledger.cli import templates, feeds, reference, administration  # noqa: F401 # isort: skip
from rowledger.cli.terminal import app, complain, err, plain
from rowledger.errors import RowledgerError, where


def main() -> None:
    """Run the command line; errors become sentences and exit codes."""
    try:
        app(prog_name="rowledger")
    except RowledgerError as error:
        complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever reads has seen enough; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - Python's own traceback ends with a message that may quote a file
        for line in ("Rowledger itself failed. This is where:", *where(error).splitlines()):
            err.print(plain(line))
        sys.exit(1)
