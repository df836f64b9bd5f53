"""Damage to the bytes of any file, and what may stand in its place. Each takes a path and says what it did."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

Damage = Callable[[Path, np.random.Generator], str]


def flip_bits(path: Path, rng: np.random.Generator) -> str:
    """Flip one bit, or a few."""
    data = bytearray(path.read_bytes())
    places = sorted(int(i) for i in rng.integers(0, len(data) * 8, size=int(rng.choice([1, 1, 1, 2, 8]))))
    for place in places:
        data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    return f"bits {', '.join(map(str, places))} flipped"


def flip_early_bit(path: Path, rng: np.random.Generator) -> str:
    """Flip a bit of the first 4 KiB, where an HDF5 file has its headers."""
    data = bytearray(path.read_bytes())
    place = int(rng.integers(0, min(len(data), 4096) * 8))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    return f"bit {place} flipped"


def cut(path: Path, rng: np.random.Generator) -> str:
    """Cut the end off."""
    size = path.stat().st_size
    kept = int(rng.choice([0, 1, size - 1, rng.integers(0, size)]))
    os.truncate(path, kept)
    return f"cut from {size} to {kept} bytes"


def grow(path: Path, rng: np.random.Generator) -> str:
    """Put bytes behind the end."""
    count = int(rng.choice([1, 512, 100_000]))
    with open(path, "ab") as file:
        file.write(rng.bytes(count) if rng.random() < 0.5 else bytes(count))
    return f"{count} bytes put behind the end"


def blank_block(path: Path, rng: np.random.Generator) -> str:
    """Fill a block with zeros or ones, as a disk that lost it gives it back."""
    data = bytearray(path.read_bytes())
    length = min(int(rng.choice([16, 512, 4096])), len(data))
    start = int(rng.integers(0, len(data) - length + 1))
    data[start : start + length] = (b"\0" if rng.random() < 0.7 else b"\xff") * length
    path.write_bytes(data)
    return f"bytes {start} to {start + length} blanked"


def swap_blocks(path: Path, rng: np.random.Generator) -> str:
    """Let two blocks change places."""
    data = bytearray(path.read_bytes())
    length = min(int(rng.choice([8, 512, 4096])), len(data) // 2)
    first, second = (int(i) for i in rng.integers(0, len(data) - length + 1, size=2))
    one, other = data[first : first + length], data[second : second + length]
    data[first : first + length], data[second : second + length] = other, one
    path.write_bytes(data)
    return f"{length} bytes at {first} and {second} swapped"


def be_nothing(path: Path, rng: np.random.Generator) -> str:
    """Let something else stand in the place of the file."""
    path.unlink()
    what = str(rng.choice(["folder", "loop", "fifo", "text", "zeros"]))
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"not what it was\n" if what == "text" else bytes(5000))
    return f"a {what} in its place"


def drop_line(path: Path, rng: np.random.Generator) -> str:
    """Remove one line of a text."""
    lines = path.read_bytes().splitlines(True)
    i = int(rng.integers(0, len(lines)))
    path.write_bytes(b"".join(lines[:i] + lines[i + 1 :]))
    return f"line {i} of {len(lines)} removed"


def double_line(path: Path, rng: np.random.Generator) -> str:
    """Repeat one line of a text."""
    lines = path.read_bytes().splitlines(True)
    i = int(rng.integers(0, len(lines)))
    path.write_bytes(b"".join(lines[: i + 1] + lines[i:]))
    return f"line {i} of {len(lines)} twice"


def change_cell(path: Path, rng: np.random.Generator) -> str:
    """Put another word in the place of a cell of a table."""
    lines = path.read_text().splitlines()
    i = int(rng.integers(1, len(lines))) if len(lines) > 1 else 0
    cells = lines[i].split(",")
    j = int(rng.integers(0, len(cells)))
    before, cells[j] = cells[j], str(rng.choice(CELLS))
    lines[i] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return f"cell {j} of line {i}: {before[:20]!r} made {cells[j][:20]!r}"


def change_value(path: Path, rng: np.random.Generator) -> str:
    """Change the number of a row, as a hand that tidies would."""
    lines = path.read_text().splitlines()
    column = next((i for i, name in enumerate(lines[0].split(",")) if name in ("value", "accuracy")), None)
    if column is None or len(lines) < 2:
        return change_cell(path, rng)
    accuracies = [i for i, line in enumerate(lines) if ",test,accuracy," in line] or range(1, len(lines))
    i = int(rng.choice(list(accuracies)))
    cells = lines[i].split(",")
    before, cells[column] = cells[column], f"{rng.random():.6f}"
    lines[i] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return f"the value of line {i}: {before} made {cells[column]}"


def change_header(path: Path, rng: np.random.Generator) -> str:
    """Rename, repeat, drop or swap names of columns."""
    lines = path.read_text().splitlines()
    names = lines[0].split(",")
    i, j = (int(k) for k in rng.integers(0, len(names), size=2))
    what = str(rng.choice(["renamed", "repeated", "dropped", "swapped"]))
    if what == "swapped":
        names[i], names[j] = names[j], names[i]
    elif what == "dropped":
        del names[i]
    else:
        names[i] = names[j] if what == "repeated" else "other"
    path.write_text("\n".join([",".join(names), *lines[1:]]) + "\n")
    return f"column {i} {what} (with {j})"


def write_otherwise(path: Path, rng: np.random.Generator) -> str:
    """Write the same text in another form, as editors and spreadsheets do."""
    text = path.read_text()
    forms: dict[str, bytes] = {
        "CRLF": text.replace("\n", "\r\n").encode(),
        "a byte-order mark": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "semicolons": text.replace(",", ";").encode(),
        "quotes": "\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in text.splitlines()).encode() + b"\n",
        "an open quote": text.replace(",", ',"', 1).encode(),
        "no last line break": text.rstrip("\n").encode(),
        "null bytes": text.replace(",", ",\0", 3).encode(),
        "a cell of 10 MB": text.replace(",", "," + "9" * 10_000_000 + ",", 1).encode(),
        "its lines upside down": "\n".join([text.splitlines()[0], *reversed(text.splitlines()[1:])]).encode() + b"\n",
    }
    name = str(rng.choice(list(forms)))
    path.write_bytes(forms[name])
    return f"written with {name}"


CELLS = (
    "", "nan", "inf", "-1", "2", "1e400", "999999999999999999999999", "None", "NA", "true", "0x10", "1.5", "=1+1",
    "\x1b[31mred", "test", "train", "accuracy", "linear", "ncm", "cnn-99", "'", "é", "-0", "0", "1",
)  # fmt: skip

ANY: dict[str, Damage] = {
    "bits": flip_bits,
    "early bit": flip_early_bit,
    "cut": cut,
    "grown": grow,
    "blank block": blank_block,
    "swapped blocks": swap_blocks,
    "other things in its place": be_nothing,
}
TEXT: dict[str, Damage] = {
    "bits": flip_bits,
    "cut": cut,
    "other things in its place": be_nothing,
    "line gone": drop_line,
    "line twice": double_line,
    "cell": change_cell,
    "value": change_value,
    "header": change_header,
    "form": write_otherwise,
}
