"""A table on a terminal, no wider than it: cells are broken into lines, and where that is not enough, the table too.

What does not fit beside the first columns, which say what a row is, stands under them again.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from figures.kit.table import Table

_GAP = "  "
_SPACE = "\N{NO-BREAK SPACE}"
# "k = 1", "< 0.001" and the ends of an interval behind its number stay together.
_NOT_APART = re.compile(r"\w = \S+|< \S+|(?<=\d )\[\S+, \S+\]")


def on_terminal(table: Table, width: int) -> str:
    """Return caption, table and notes in lines of at most `width` letters, but for a single word that is longer."""
    cells = [[_joined(cell) for cell in row] for row in (table.head, *table.rows)]
    parts = [
        _drawn([[row[place] for place in places] for row in cells], table.text, width)
        for places in _parts(cells, table.text, width)
    ]
    return "\n\n".join([textwrap.fill(table.caption, width), *parts, *(textwrap.fill(n, width) for n in table.notes)])


def _joined(cell: str) -> str:
    return _NOT_APART.sub(lambda found: found[0].replace(" ", _SPACE), cell)


def _parts(cells: Sequence[Sequence[str]], text: int, width: int) -> list[list[int]]:
    """Return the columns of each table under the other: the text columns, and as many of the numbers as fit beside."""
    least = [_longest_word(column) + len(_GAP) for column in zip(*cells, strict=True)]
    first = list(range(text))
    parts, taken = [list(first)], sum(least[:text]) - len(_GAP)
    for place in range(text, len(least)):
        if taken + least[place] > width and len(parts[-1]) > text:
            parts, taken = [*parts, list(first)], sum(least[:text]) - len(_GAP)
        parts[-1].append(place)
        taken += least[place]
    return parts


def _drawn(cells: Sequence[Sequence[str]], text: int, width: int) -> str:
    """Return head, a rule and rows; the widest column is narrowed until all fit, but never below its longest word."""
    columns = list(zip(*cells, strict=True))
    least, widths = ([of(column) for column in columns] for of in (_longest_word, lambda c: max(map(len, c))))
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        open_ = [place for place, own in enumerate(widths) if own > least[place]]
        if not open_:
            break
        widths[max(open_, key=widths.__getitem__)] -= 1
    pairs = zip(columns, widths, strict=True)
    widths = [max(len(line) for cell in column for line in _broken(cell, own)) for column, own in pairs]
    head, *rows = [_lines(row, widths, text) for row in cells]
    rule = _GAP.join("-" * own for own in widths)
    return "\n".join([*head, rule, *(line for row in rows for line in row)]).replace(_SPACE, " ")


def _lines(row: Sequence[str], widths: Sequence[int], text: int) -> list[str]:
    """Return the lines of one row, text to the left and numbers to the right."""
    broken = [_broken(cell, own) for cell, own in zip(row, widths, strict=True)]
    height = max(map(len, broken))
    return [
        _GAP.join(
            (lines[n] if n < len(lines) else "").ljust(own)
            if place < text
            else (lines[n] if n < len(lines) else "").rjust(own)
            for place, (lines, own) in enumerate(zip(broken, widths, strict=True))
        ).rstrip()
        for n in range(height)
    ]


def _broken(cell: str, width: int) -> list[str]:
    lines = [""]
    for word in cell.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        lines = [*lines[:-1], joined] if len(joined) <= width else [*lines, word] if lines[-1] else [word]
    return lines


def _longest_word(column: Sequence[str]) -> int:
    return max(len(word) for cell in column for word in cell.split(" "))
