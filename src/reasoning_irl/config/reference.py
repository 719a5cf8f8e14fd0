"""Writes the page that explains every key, from the schema and its comments.

Usage: python -m reasoning_irl.config.reference > docs/config.md
"""

import ast
import dataclasses
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin

from reasoning_irl.config import schema
from reasoning_irl.config.compose import SCHEMAS, SCRIPTS

INTRODUCTION = """# Configuration keys

Written by `python -m reasoning_irl.config.reference > docs/config.md` from
[schema.py](../src/reasoning_irl/config/schema.py), in which keys are explained. The values are in `configs/`, and
`python SCRIPT.py --cfg job` prints those of one configuration; `key=value` overrides one. The programs are named after
their scripts; "offline" is `irl_train.py --config-name=offline_irl_train`.
"""
PROGRAMS = {
    node: "offline" if node is schema.OfflineTrainConfig else script.removesuffix(".py")
    for node, script in SCRIPTS.items()
}
GROUP = "group of keys"
KINDS = {bool: "true, false", int: "integer", float: "number", str: "text"}


@dataclasses.dataclass(frozen=True)
class Row:
    key: str
    values: str
    meaning: str


def comments() -> dict[tuple[str, str], str]:
    """The comment of each field and enum member of the schema: at its end or, without one, above it."""
    source = inspect.getsource(schema)
    found: dict[int, str] = {}
    alone: set[int] = set()  # lines that are only a comment
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = token.string.removeprefix("#").strip()
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    texts: dict[tuple[str, str], str] = {}
    for node in ast.parse(source).body:
        for part in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(part, ast.AnnAssign | ast.Assign):
                target = part.target if isinstance(part, ast.AnnAssign) else part.targets[0]
                first = part.lineno
                while first - 1 in alone:
                    first -= 1
                above = " ".join(found[line] for line in range(first, part.lineno))
                assert isinstance(node, ast.ClassDef)
                texts[node.name, ast.unparse(target)] = found.get(part.end_lineno or part.lineno, above)
    return texts


def rows(node: type, texts: dict[tuple[str, str], str], prefix: str = "") -> Iterator[Row]:
    """The keys of a schema in order."""
    for field in dataclasses.fields(node):
        key, kind = f"{prefix}{field.name}", field.type
        owner = next(base for base in node.__mro__ if field.name in inspect.get_annotations(base))
        text = texts[owner.__name__, field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if about := text or docstring(kind):
                yield Row(key, GROUP, about)
            yield from rows(kind, texts, f"{key}.")
        else:
            choices = [f"`{c}`: {m}" for c in choices_of(kind) if (m := texts.get((type(c).__name__, c.name), ""))]
            yield Row(key, f"{values_of(kind)}{bounds(field.metadata)}", "; ".join(filter(None, [text, *choices])))


def docstring(node: type) -> str:
    """A class's own docstring on one line; a dataclass without one gets its signature from Python."""
    text = inspect.cleandoc(node.__doc__ or "")
    return "" if text.startswith(f"{node.__name__}(") else re.sub(r"\s+", " ", text).removesuffix(".")


def values_of(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return ", ".join("null" if part is type(None) else values_of(part) for part in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {values_of(get_args(kind)[0])}"
    return KINDS[kind] if kind in KINDS else ", ".join(f"`{choice}`" for choice in kind)


def choices_of(kind: Any) -> list[StrEnum]:
    inner = (get_args(kind) or (kind,))[0]
    return [*inner] if isinstance(inner, type) and issubclass(inner, StrEnum) else []


def bounds(metadata: Any) -> str:
    words = {"low": "at least", "above": "above", "high": "at most"}
    limits = [f"{word} {metadata[name]}" for name, word in words.items() if metadata.get(name) is not None]
    return f", {' and '.join(limits)}" if limits else ""


def page() -> str:
    """One table for each section: key, values, meaning, and the programs that have the key."""
    texts = comments()
    programs: dict[Row, list[str]] = {}
    for node in SCHEMAS.values():
        for row in rows(node, texts):
            programs.setdefault(row, []).append(PROGRAMS[node])
    sections: dict[str, list[str]] = {}
    for row, names in programs.items():
        used = "all" if len(names) == len(PROGRAMS) else ", ".join(names)
        cells = [f"`{row.key}`", row.values, row.meaning.replace("|", "\\|"), used]
        group, dot, _ = row.key.partition(".")
        sections.setdefault(group if dot or row.values == GROUP else "Top level", []).append(f"| {' | '.join(cells)} |")
    head = "| key | values | meaning | programs |\n|---|---|---|---|"
    return "\n".join(
        [INTRODUCTION, *(f"## {name}\n\n{head}\n" + "\n".join(ls) + "\n" for name, ls in sections.items())]
    )


if __name__ == "__main__":
    print(page(), end="")
