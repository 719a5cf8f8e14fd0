"""Formats tables in Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

MISSING = "–"

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}

Run = TypeVar("Run")


def known(metrics: Mapping[Run, Mapping[str, Any]], name: str) -> dict[Run, float]:
    """A metric by run, of the runs that have it."""
    return {run: of_run[name] for run, of_run in metrics.items() if of_run.get(name) is not None}


def number(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A value with three decimals, with its interval if given."""
    if value is None:
        return MISSING
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def change(value: float, low: float | None = None, high: float | None = None) -> str:
    """A difference with its sign and three decimals, with its interval if given."""
    return f"{value:+z.3f}" if low is None or high is None else f"{value:+z.3f} [{low:+z.3f}, {high:+z.3f}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def latex(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A LaTeX table for the booktabs package: the first column is left-aligned, the others are centred."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escape, cells)) + r" \\"

    body = [r"\toprule", line(head), r"\midrule", *map(line, rows), r"\bottomrule"]
    columns = "l" + "c" * (len(head) - 1)
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            *body,
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Escapes the characters that LaTeX would interpret."""
    return "".join(_LATEX.get(character, character) for character in text)
