"""The house rule, and the linter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SCRIPTS = {path.stem for path in TOP.glob("*.py")}
PACKAGES = {"data", "models", "utils"}
MODULES = sorted(path for package in PACKAGES for path in (TOP / package).glob("*.py"))


def imported(path: Path) -> set[str]:
    """The first words of all names that a module imports, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_imported_sees_every_form(tmp_path: Path):
    source = "import a.b\nfrom c.d import e\ndef f():\n    import g as h\n"
    (tmp_path / "m.py").write_text(source)
    assert imported(tmp_path / "m.py") == {"a", "c", "g"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_packages_import_neither_each_other_nor_scripts(path: Path):
    assert not imported(path) & ((PACKAGES - {path.parent.name}) | SCRIPTS)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_nothing_imports_a_script(script: str):
    assert not imported(TOP / f"{script}.py") & SCRIPTS


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_init_files_define_nothing(package: str):
    assert (TOP / package / "__init__.py").read_text().strip() == ""


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_is_clean(words: list[str]):
    ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", str(TOP)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
