"""The floors of the house, the sizes of its rooms, and the linter."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SCRIPTS = {path.stem for path in TOP.glob("*.py")}
PACKAGES = ("data", "models", "utils")
MODULES = sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))
EQUATIONS_AND_NETWORKS = ("losses", "noise_split", "preact_resnet", "compact_net")
LIFTED_OUT = {f"models.{name}" for name in EQUATIONS_AND_NETWORKS}
# A run draws its own plots and review page: these of its room import the rooms above it.
UPWARD = {
    ("utils.run_folder.session", "plots"),
    ("utils.run_folder.suspects", "review"),
    ("utils.run_folder.predictions_writer", "review"),
}
LONGEST_FILE, LONGEST_FUNCTION = 220, 50  # lines
LONGER = {"loss_with_departures": 51}


def ours(path: Path) -> set[str]:
    """Modules of this project that a module imports, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {node.module, *filter(is_module, within)}
    return {name for name in names if name.split(".")[0] in {*PACKAGES, *SCRIPTS}}


def is_module(name: str) -> bool:
    path = TOP / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def room(name: str) -> str:
    """The room of utils/ that holds a module; "" for the ground and what is not in utils/."""
    package, *inner = name.split(".")
    return inner[0] if package == "utils" and inner and (TOP / "utils" / inner[0]).is_dir() else ""


IMPORTS = {".".join(path.relative_to(TOP).with_suffix("").parts): ours(path) for path in MODULES}


@pytest.mark.parametrize("name", [*IMPORTS, *sorted(SCRIPTS)])
def test_the_floors(name: str):
    imports = IMPORTS[name] if name in IMPORTS else ours(TOP / f"{name}.py")
    package = name.split(".")[0]
    floors = {"data": {"data", "utils"}, "models": {"models", "utils"}, "utils": {"utils"}}
    assert {each.split(".")[0] for each in imports} <= floors.get(package, set(PACKAGES))
    on_the_ground = package == "utils" and not room(name) and name != "utils.clean"
    if package == "models" or on_the_ground:
        assert {room(each) for each in imports} <= {""}
    if name in LIFTED_OUT:
        assert imports <= LIFTED_OUT


def test_rooms_of_utils_import_each_other_without_a_cycle():
    found = {(name, room(each)) for name, imports in IMPORTS.items() for each in imports}
    assert found >= UPWARD and IMPORTS.keys() >= LIFTED_OUT
    graph: dict[str, set[str]] = {}
    for name, below in found - UPWARD:
        graph.setdefault(room(name), set()).update({below} - {room(name), ""})
    graph.pop("")
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


@pytest.mark.parametrize("path", [*MODULES, *sorted(TOP.glob("*.py"))], ids=lambda path: path.name)
def test_files_and_functions_stay_short(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    assert path.name != "__init__.py" or text.strip() == ""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= LONGER.get(node.name, LONGEST_FUNCTION), node.name


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_is_clean(words: list[str]):
    ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", str(TOP)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
