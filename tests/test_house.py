"""The floors of the house, the sizes of its rooms, and the linter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SCRIPTS = {path.stem for path in TOP.glob("*.py")}
PACKAGES = ("data", "models", "utils")
MODULES = sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))
MAY_IMPORT = {"data": {"data", "utils"}, "models": {"models", "utils"}, "utils": {"utils"}}
GROUND = (
    "files",
    "console",
    "cpus",
    "devices",
    "lock",
    "seeding",
    "metrics",
)  # utils/, import none of its rooms
TO_BE_LIFTED_OUT = ("losses", "noise_split", "preact_resnet")  # models/, import but each other
LONGEST_FILE, LONGEST_FUNCTION = 280, 65  # lines


def imported(path: Path) -> set[str]:
    """All modules that a module imports, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module)
    return names


def ours(path: Path) -> set[str]:
    """Those of this project."""
    return {name for name in imported(path) if name.split(".")[0] in {*PACKAGES, *SCRIPTS}}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TOP)))
def test_each_module_imports_from_its_floor_or_below(path: Path):
    package = path.relative_to(TOP).parts[0]
    assert {name.split(".")[0] for name in ours(path)} <= MAY_IMPORT[package]


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_nothing_imports_a_script(script: str):
    assert not {name.split(".")[0] for name in imported(TOP / f"{script}.py")} & SCRIPTS


def test_the_ground_of_utils_imports_no_room():
    for name in GROUND:
        rooms = {word for word in ours(TOP / "utils" / f"{name}.py") if word.count(".") > 1}
        assert rooms == set(), name


def test_the_equations_can_be_lifted_out():
    allowed = {f"models.{name}" for name in TO_BE_LIFTED_OUT}
    for name in TO_BE_LIFTED_OUT:
        assert ours(TOP / "models" / f"{name}.py") <= allowed, name


@pytest.mark.parametrize("path", [*MODULES, *sorted(TOP.glob("*.py"))], ids=lambda path: path.name)
def test_files_and_functions_stay_short(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_init_files_define_nothing():
    for path in TOP.glob("*/**/__init__.py"):
        if path.relative_to(TOP).parts[0] in PACKAGES:
            assert path.read_text().strip() == "", path


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_is_clean(words: list[str]):
    ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", str(TOP)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
