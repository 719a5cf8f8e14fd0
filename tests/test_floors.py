"""The package's layout: imports run downwards, and rooms on one floor do not know each other."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGE = "reasoning_irl"
# From the ground up. Modules import from lower floors and from their own room only.
FLOORS: list[tuple[str, ...]] = [
    ("utils",),
    ("config", "text"),
    ("tracking", "rewards", "metrics"),
    ("data",),
    ("models",),
    ("training", "eval.traces", "export"),
    ("eval.scoring",),
    ("eval.reports",),
    ("eval",),
]
ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    """The longest name in FLOORS that the module starts with."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next(name for name in names if name in ROOMS)


def imported(path: Path) -> set[str]:
    """The package's own modules that a file imports, anywhere in it, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: use absolute imports")
        found |= {name.removeprefix(f"{PACKAGE}.") for name in names if name and name.startswith(f"{PACKAGE}.")}
    return found


MODULES = {
    ".".join(path.relative_to(SRC / PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SRC / PACKAGE).rglob("*.py"))
    if path.parent != SRC / PACKAGE or path.name != "__init__.py"
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    own = room_of(module)
    for other in imported(MODULES[module]):
        room = room_of(other)
        assert room == own or ROOMS[room] < ROOMS[own], f"{module} imports {other}, which is not on a lower floor"


def test_every_room_exists() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)
