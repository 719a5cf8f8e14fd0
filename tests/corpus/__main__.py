"""Writes the page of hostile input and its errors: python -m tests.corpus > docs/errors.md."""

from tests.corpus.cases import CASES, KINDS, TITLES, Case

INTRODUCTION = f"""# What bad input ends in

Written by `python -m tests.corpus > docs/errors.md` from the {len(CASES)} entries of [tests/corpus](../tests/corpus),
all of which `pytest tests/test_corpus.py` tries. Each ends in one line on stderr, `error: ...`, with exit
code 2, and mostly before a model is loaded; `HYDRA_FULL_ERROR=1` shows the traceback instead. The second column is a
part of that line.
"""


def row(case: Case) -> str:
    cells = (text.replace("|", "\\|").replace("\n", " ") for text in (case.name, case.error))
    return "| {} | {} |".format(*cells)


def page() -> str:
    """One table for each kind of input."""
    parts = [INTRODUCTION]
    for kind in KINDS:
        rows = "\n".join(row(case) for case in CASES if case.kind == kind)
        parts.append(f"## {TITLES[kind]}\n\n| given | the line says |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
