"""Writes docs/settings.md from the configuration's fields: python tests/settings_reference.py > docs/settings.md"""

from __future__ import annotations

import json
from dataclasses import asdict

from layerwise.recipes import digits
from layerwise.settings import SETTINGS, by_path

HEAD = """# Settings

Every field of a run's configuration, written from the code by `python tests/settings_reference.py >
docs/settings.md`; a test compares the two. `layerwise-train --set KEY=VALUE` replaces any of them, in Python
`settings={KEY: VALUE}`; some have a flag of their own. `layerwise-inspect run.h5` shows those of a run.

| key | flag | in the recipe `digits` | what it is |
| --- | --- | --- | --- |
"""


def reference() -> str:
    """Return the text of docs/settings.md."""
    values = by_path(asdict(digits()))
    rows = []
    for path, setting in SETTINGS.items():
        flag = f"`{setting.flag}`" if setting.has_flag else ""
        rows.append(f"| `{path}` | {flag} | {json.dumps(values[path])} | {setting.help} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(reference(), end="")
