"""Where the numbers of a page come from: each run file with its digests, by which software and command it was made."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tables import file_names
from figures.kit.table import Table
from layerwise.units import show_seconds
from probes.results.table import table_path


@dataclass(frozen=True)
class Origins:
    """Facts that runs share, or each with its values, as pairs of words; and a table with a row for each run."""

    facts: Sequence[tuple[str, str]]
    runs: Table


def origins(paths: Sequence[Path]) -> Origins:
    """Return where runs come from."""
    files = file_names(map(str, paths))
    found = [_origin(path) | {"name": files[str(path)]} for path in paths]
    facts = {
        name: list(dict.fromkeys(one[name] for one in found if one[name]))
        for name in ("data", "images", "software", "machine", "command")
    }
    cells = [
        [one["name"], one["network"], one["run_id"], one["created"], one["took"], one["content"], one["results"]]
        for one in found
    ]
    return Origins(
        [(name, "; ".join(values)) for name, values in facts.items() if values],
        Table(
            head=["run", "network", "run id", "made", "training took", "content digest", "digest of its results"],
            rows=cells,
            caption="Run files, with the SHA-256 of their content and that of the table of their probe results.",
            text=7,
        ),
    )


def _origin(path: Path) -> dict[str, Any]:
    from layerwise.runfile import RunFile

    with RunFile(path) as run:
        made, about = run.provenance, run.dataset
        counts = {split: len(run.labels(split)) for split in run.splits}
        found = {"run_id": run.run_id, "content": run.content_digest, "network": run.network_name}
    software = json.loads(made.get("software", "{}"))
    seconds = json.loads(made.get("seconds", "{}")).get("train")
    prints = ", ".join(f"{split} {value[:16]}" for split, value in sorted(about["fingerprint"].items()))
    machine = [str(made["device"])] if "device" in made else []
    machine += [f"{made['threads']} thread{'' if int(made['threads']) == 1 else 's'}"] if "threads" in made else []
    return found | {
        "created": str(made.get("created", "-")),
        "took": "-" if seconds is None else show_seconds(float(seconds)),
        "results": hashlib.sha256(table_path(path).read_bytes()).hexdigest(),
        "data": f"{about['name']}, {len(about['classes'])} classes (fingerprints: {prints})",
        "images": ", ".join(f"{split} {n:,}" for split, n in counts.items()),
        "software": ", ".join(f"{name} {version}" for name, version in sorted(software.items())),
        "machine": ", ".join(machine),
        "command": _command(json.loads(made.get("command", "[]"))),
    }


def _command(words: Sequence[str]) -> str:
    """Return a command line; a process that a study began has no name of its own in it."""
    if not words:
        return ""
    name = "separability-study" if words[0] == "-c" else Path(words[0]).name
    return shlex.join([name, *words[1:]])
