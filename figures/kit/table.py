"""The form of tables: Markdown for a screen, LaTeX (booktabs) for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_SPECIAL = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "$": r"\$", "^": r"\^{}"}
_SPECIAL |= {"{": r"\{", "}": r"\}", "\\": r"\textbackslash{}"}
# In the fonts that LaTeX takes by default these are other signs, and two hyphens are a dash.
_SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


@dataclass(frozen=True)
class Table:
    """A table of text: a head, rows of as many cells, a caption, notes under it; `text` columns are set left."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    notes: Sequence[str] = field(default_factory=tuple)
    text: int = 1


def markdown(table: Table) -> str:
    """Return the table as Markdown with aligned columns: caption, table, notes."""
    cells = [[_bar(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(table.head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if place < table.text else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if place < table.text else f"{'-' * (width - 1)}:" for place, width in enumerate(widths)]
    notes = [f"{note}\n" for note in table.notes]
    return "\n".join([f"{table.caption}\n", line(cells[0]), line(rule), *map(line, cells[1:]), "", *notes])


def latex(table: Table) -> str:
    r"""Return the table as a LaTeX table environment; it needs \usepackage{booktabs} and no other package."""
    columns = "l" * table.text + "r" * (len(table.head) - table.text)
    body = [f"{' & '.join(map(_tex, row))} \\\\" for row in table.rows]
    notes = [rf"\par\smallskip\footnotesize {_tex(note)}" for note in table.notes]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(table.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            f"{' & '.join(map(_tex, table.head))} \\\\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _bar(cell: str) -> str:
    return cell.replace("|", r"\|")


def _tex(cell: str) -> str:
    text = "".join(_SPECIAL.get(letter, letter) for letter in cell).replace("--", "-{}-").replace("--", "-{}-")
    # After the end of a row, LaTeX takes these for options of that end.
    return "{}" + text if text.startswith(("[", "*")) else text
