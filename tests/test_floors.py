"""The layout of the package: imports run from higher to lower layers, and packages of one layer are independent."""

import ast
from pathlib import Path

import pytest

PACKAGE = "reasoning_irl"
SRC = Path(__file__).resolve().parents[1] / "src" / PACKAGE
# The lowest layer first. A module imports only from lower layers and from its own package.
LAYERS: list[tuple[str, ...]] = [
    ("utils",),
    ("config", "text"),
    ("tracking", "rewards", "metrics"),
    ("data",),
    ("models", "model_card"),
    ("training", "eval.traces", "export", "check_data"),
    ("eval.scoring",),
    ("eval.reports",),
    ("eval",),
    ("cli",),
]
LAYER_OF = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}


def package_of(module: str) -> str:
    """The longest name in LAYERS that the module's name starts with."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next(name for name in names if name in LAYER_OF)


def imported(path: Path) -> set[str]:
    """All modules of the package that a file imports, also inside functions, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: use absolute imports")
        found |= {name.removeprefix(f"{PACKAGE}.") for name in names if name and name.startswith(f"{PACKAGE}.")}
    return found


MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
    if path.parent != SRC or path.name != "__init__.py"
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    own = package_of(module)
    for other in imported(MODULES[module]):
        package = package_of(other)
        is_lower = LAYER_OF[package] < LAYER_OF[own]
        assert package == own or is_lower, f"{module} imports {other}, which is not in a lower layer"


def test_layers_name_every_package() -> None:
    assert {package_of(module) for module in MODULES} == set(LAYER_OF)
