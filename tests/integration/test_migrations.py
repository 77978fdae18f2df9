"""What the migrations make is what the code has."""

import os
import subprocess
import sys
from pathlib import Path

from tests.nodes import ROOT


def test_the_migrations_make_the_tables_that_the_code_has(tmp_path: Path) -> None:
    for step in ("upgrade", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "db", step, "-d", "migrations"],
            cwd=ROOT,
            env={**os.environ, "GRID_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
