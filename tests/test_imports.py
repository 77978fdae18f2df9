"""Who may know whom: the contracts of setup.cfg, and what they cannot say of app.py and wsgi.py."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("grid_node", "events", "clients/python/grid_client")


def test_the_layers_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_a_broken_layer_is_seen(tmp_path: Path) -> None:
    """The check above can fail: the same contracts over a copy of the tree in which one service imports a face."""
    for name in ("grid_node", "events"):
        copy_python(ROOT / name, tmp_path / name)
    copy_python(ROOT / "clients/python/grid_client", tmp_path / "grid_client")
    (tmp_path / "setup.cfg").write_text((ROOT / "setup.cfg").read_text())
    with (tmp_path / "grid_node/identity/service.py").open("a") as file:
        file.write("\nimport grid_node.http\n")

    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "grid_node.identity.service -> grid_node.http" in done.stdout


@pytest.mark.parametrize("module", ["torch", "numba", "llvmlite"])
def test_the_web_process_loads_no_compute_library(module: str) -> None:
    code = f"import sys, app; app.create_app; sys.exit({module!r} in sys.modules)"

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr


def test_only_app_and_wsgi_name_eventlet() -> None:
    knowing = {str(file.relative_to(ROOT)) for file in sources() if "eventlet" in imported(file)}

    assert knowing == {"app.py", "wsgi.py"}


def test_one_module_emits() -> None:
    emitting = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "events").rglob("*.py")
        if any(isinstance(node, ast.Attribute) and node.attr == "emit" for node in ast.walk(parsed(file)))
    }

    assert emitting == {"events/publisher.py"}


def sources() -> Iterator[Path]:
    yield ROOT / "app.py"
    yield ROOT / "wsgi.py"
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def imported(file: Path) -> set[str]:
    """Top-level names of what the file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def parsed(file: Path) -> ast.AST:
    return ast.parse(file.read_text(), str(file))


def copy_python(source: Path, target: Path) -> None:
    for file in source.rglob("*.py"):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
