"""The form of tables: Markdown for a screen, LaTeX (booktabs, siunitx) for a paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_SPECIAL = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "$": r"\$", "^": r"\^{}"}
_SPECIAL |= {"{": r"\{", "}": r"\}", "\\": r"\textbackslash{}"}
# In the fonts that LaTeX takes by default these are other signs, and two hyphens are a dash.
_SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


@dataclass(frozen=True)
class Table:
    """A table of text: a head, rows of as many cells, a caption, notes under it; `text` columns are set left.

    label: what LaTeX refers to it by, after "tab:"; empty for none.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    notes: Sequence[str] = field(default_factory=tuple)
    text: int = 1
    label: str = ""


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
    r"""Return the table as a LaTeX table environment; it needs \usepackage{booktabs,siunitx} and no other package.

    Columns of numbers are siunitx's, aligned at the decimal point; an interval in brackets has a column of its own.
    """
    columns = [_column([row[place] for row in table.rows], place < table.text) for place in range(len(table.head))]
    body = [_row(column.cell(cell) for column, cell in zip(columns, row, strict=True)) for row in table.rows]
    notes = [rf"\par\smallskip\footnotesize {_tex(note)}" for note in table.notes]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,siunitx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(table.caption)}}}",
            *([rf"\label{{tab:{table.label}}}"] if table.label else []),
            rf"\begin{{tabular}}{{{''.join(column.form for column in columns)}}}",
            r"\toprule",
            _row(column.head(title) for column, title in zip(columns, table.head, strict=True)),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
_WITH_INTERVAL = re.compile(rf"({_NUMBER.pattern}) (\[.*\])")
# What stands in a column of numbers and is none.
_NO_NUMBER = re.compile(r"-|< 0\.\d+|\d+ of \d+")


@dataclass(frozen=True)
class _Column:
    """A column of LaTeX: its form in the head of tabular, whether its cells are numbers, and whether with intervals."""

    form: str
    is_number: bool = False
    with_interval: bool = False

    def head(self, title: str) -> str:
        if self.with_interval:
            return rf"\multicolumn{{2}}{{c}}{{{_tex(title)}}}"
        return f"{{{_tex(title)}}}" if self.is_number else _tex(title)

    def cell(self, cell: str) -> str:
        if not self.is_number:
            return _tex(cell)
        found = _WITH_INTERVAL.fullmatch(cell)
        number, interval = (found[1], found[found.re.groups]) if found else (cell, "")
        shown = number if _NUMBER.fullmatch(number) else f"{{{_tex(number)}}}"
        return f"{shown} & {_tex(interval)}" if self.with_interval else shown


def _column(cells: Sequence[str], is_text: bool) -> _Column:
    """Return the column that fits its cells: numbers with as many digits as the longest have, or text."""
    found = [match for cell in cells if (match := _WITH_INTERVAL.fullmatch(cell))]
    numbers = [_NUMBER.fullmatch(match[1]) for match in found] + [_NUMBER.fullmatch(cell) for cell in cells]
    parts = [match.groups() for match in numbers if match]
    others = [cell for cell in cells if not (_NUMBER.fullmatch(cell) or _WITH_INTERVAL.fullmatch(cell))]
    if is_text or not parts or not all(map(_NO_NUMBER.fullmatch, others)):
        return _Column("l" if is_text else "r")
    sign = "+" if any(part[0] == "+" for part in parts) else "-" if any(part[0] for part in parts) else ""
    whole, decimals = (max(len(part[place] or "") for part in parts) for place in (1, 2))
    options = f"table-format={sign}{whole}{f'.{decimals}' if decimals else ''}"
    options += ", retain-explicit-plus" if sign == "+" else ""
    return _Column(f"S[{options}]{'r' if found else ''}", True, bool(found))


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _bar(cell: str) -> str:
    return cell.replace("|", r"\|")


def _tex(cell: str) -> str:
    text = "".join(_SPECIAL.get(letter, letter) for letter in cell).replace("--", "-{}-").replace("--", "-{}-")
    # After the end of a row, LaTeX takes these for options of that end.
    return "{}" + text if text.startswith(("[", "*")) else text
