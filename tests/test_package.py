"""What the package as a whole promises: its layers, its exports, and what importing it loads."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lossatlas

PACKAGE = Path(lossatlas.__file__).parent
LAYERS = {"lab": 4, "cli": 4, "__main__": 4, "objectives": 3, "assign": 2, "targets": 2, "losses": 1, "boxes": 0}
"""A module imports from its own layer and those below; what is not listed is below all of them."""


def layer(module: str) -> int:
    return LAYERS.get(module.removeprefix("lossatlas").lstrip(".").partition(".")[0], -1)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("lossatlas.")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    module = ".".join(("lossatlas", *path.relative_to(PACKAGE).with_suffix("").parts))
    upward = {name for name in imported(path) if layer(name) > max(layer(module), -1)}
    # The box losses and the assigners stand on the geometry; nothing there stands on them.
    assert not upward


@pytest.mark.parametrize("name", ["lossatlas", *(f"lossatlas.{part}" for part in lossatlas.__all__ if part[0] != "_")])
def test_every_exported_name_is_there(name: str) -> None:
    module = importlib.import_module(name)
    missing = [exported for exported in module.__all__ if not hasattr(module, exported)]
    assert not missing
    assert len(set(module.__all__)) == len(module.__all__)


def test_importing_the_library_loads_torch_and_nothing_heavy() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import lossatlas; lossatlas.losses, lossatlas.objectives;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    third_party = set(done.stdout.split()) - sys.stdlib_module_names
    assert third_party <= {"lossatlas", "jaxtyping", "wadler_lindig", "numpy", "torch", "typing_extensions"}, (
        third_party
    )
