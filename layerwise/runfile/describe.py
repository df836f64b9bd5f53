"""A run file in words, as layerwise-inspect prints it."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layerwise.config import RunConfig
from layerwise.runfile.reader import RunFile
from layerwise.settings import SETTINGS
from layerwise.units import show_size


def describe_run(run: RunFile) -> Iterator[str]:
    """Yield the lines that describe a run: origin, data, network, and what each depth stores."""
    about, made = run.dataset, run.provenance
    sizes = {split: len(run.labels(split)) for split in run.splits}
    yield f"{run.path}: run {run.run_id}"
    software = json.loads(made.get("software", "{}"))
    yield f"made            {made.get('created', 'at an unknown time')} by layerwise {software.get('layerwise', '?')}"
    if command := json.loads(made.get("command", "[]")):
        words = shlex.join([Path(command[0]).name, *command[1:]])
        yield from textwrap.wrap(
            words, 80, initial_indent="command         ", subsequent_indent=16 * " ", break_on_hyphens=False
        )
    yield f"content digest  {run.content_digest}"
    yield f"data            {about['name']}, {len(about['classes'])} classes; " + ", ".join(
        f"{split} {n}" for split, n in sizes.items()
    )
    if run.config:
        net, cfg = run.config.network, run.config
        last = f"M_f = {net.last_aux_width}, " if net.last_aux_width else ""
        kind = "" if net.architecture == "plain" else f"{net.variant}: "
        yield (
            f"network         {kind}J = {net.depth}, M = {net.width}, k = {net.k}, M~ = {net.aux_width}, {last}"
            f"BatchNorm {'on' if net.has_batch_norm else 'off'}"
        )
        yield f"training        {cfg.mode}, recipe {cfg.recipe}, seed {cfg.seed}"
        settings = ", ".join(f"{path} {_show(cfg, path)}" for path in SETTINGS)
        yield from textwrap.wrap(settings, 80, initial_indent="settings        ", subsequent_indent=16 * " ")
    if run.extraction:
        yield from _origin_lines(run.extraction)
    yield from _pruning_lines(run)
    names = run.files(run.splits[0])
    named = f"; their files are named, below {made.get('data_dir')}" if names is not None else ""
    yield "images          " + ("kept" if run.images(run.splits[0]) else "not kept") + named
    yield ""
    width = max(10, *(len(run.depth_module(depth)) for depth in run.depths))
    yield from _depth_lines(run, width)


def _pruning_lines(run: RunFile) -> Iterator[str]:
    """Yield what is said of each pruned block: its filters, and its auxiliary's test accuracy in the three states."""
    for depth in run.depths:
        if (found := run.pruning(depth)) is not None:
            kept, saliency, accuracy = found
            states = (("before", "before"), ("after", "pruned"), ("fine-tuned", "finetuned"))
            told = ", ".join(f"{word} {accuracy[f'{state}_test_accuracy']:.2%}" for word, state in states)
            line = f"block {depth}: {len(saliency)} -> {len(kept)} filters; test {told}"
            yield from textwrap.wrap(line, 80, initial_indent="pruned          ", subsequent_indent=16 * " ")


def _origin_lines(origin: dict[str, Any]) -> Iterator[str]:
    """Yield what a file says of a network built elsewhere, or of arrays."""
    yield f"network         {origin['label']}, trained on: {origin['trained_on']}, seed {origin['seed']}"
    facts = {name: value for name, value in sorted(origin.items()) if name not in ("label", "trained_on", "seed")}
    settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in facts.items())
    yield from textwrap.wrap(settings, 80, initial_indent="origin          ", subsequent_indent=16 * " ")


def _show(config: RunConfig, path: str) -> str:
    found: object = config
    for name in path.split("."):
        found = getattr(found, name)
    return str(list(found)) if isinstance(found, tuple) else str(found) or "-"


_KINDS = {"pooled": "pooled", "maps": "maps", "class_token": "class"}


def _kept(run: RunFile, depth: int) -> str:
    """Return what of a depth is stored, in a word for each kind."""
    return "+".join(word for kind, word in _KINDS.items() if _stored(run, depth, kind)) or "nothing"


def _depth_lines(run: RunFile, width: int) -> Iterator[str]:
    """Yield the table of depths, with module names of a width; a wide column takes its room from that of the shapes."""
    shapes = {depth: " x ".join(map(str, run.depth_shape(depth))) for depth in run.depths}
    kept = {depth: _kept(run, depth) for depth in run.depths}
    wide = max(12, *map(len, kept.values()))
    room = max(26 - wide, *map(len, ("C x H x W", *shapes.values())))
    yield (
        f"{'depth':>5}  {'module':<{width}}  {'C x H x W':<{room}}  {'stored':<{wide}}  {'type':<7}  {'bytes':>9}  "
        "auxiliary"
    )
    for depth in run.depths:
        held = [rows for kind in _KINDS for rows in _stored(run, depth, kind)]
        kind = held[0].dtype.name if held else "-"
        accuracy = run.scores(depth).get("test_accuracy")
        yield (
            f"{depth:>5}  {run.depth_module(depth):<{width}}  {shapes[depth]:<{room}}  {kept[depth]:<{wide}}  "
            f"{kind:<7}  {show_size(sum(rows.nbytes for rows in held)):>9}  "
            f"{'-' if accuracy is None else f'{accuracy:.2%}'}"
        )


def run_facts(run: RunFile) -> dict[str, Any]:
    """Return what `describe_run` says, and more, as values of JSON."""
    made = {name: _plain(value) for name, value in run.provenance.items()}
    depths = []
    for depth in run.depths:
        rows = [*_stored(run, depth, "pooled"), *_stored(run, depth, "maps"), *_stored(run, depth, "class_token")]
        depths.append(
            {
                "depth": depth,
                "module": run.depth_module(depth),
                "shape": list(run.depth_shape(depth)),
                "bytes": sum(one.nbytes for one in rows),
                "scores": {name: _plain(value) for name, value in run.scores(depth).items()},
            }
        )
    return {
        "path": str(run.path),
        "run_id": run.run_id,
        "content_digest": run.content_digest,
        "provenance": made,
        "dataset": run.dataset,
        "images": {split: len(run.labels(split)) for split in run.splits},
        "config": None if run.config is None else json.loads(run.config.to_json()),
        "extraction": run.extraction,
        "depths": depths,
    }


def _plain(value: Any) -> Any:
    """Return an attribute as JSON has it: numpy's numbers as Python's, text that is JSON read."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.loads(value)
    return value.item() if hasattr(value, "item") else value


def _stored(run: RunFile, depth: int, kind: str) -> list[Any]:
    return [rows for split in run.splits if (rows := getattr(run, kind)(depth, split)) is not None]


def verify_run(run: RunFile) -> str:
    """Check every byte of every dataset and return the line that says so; raise UserError at damage."""
    paths = list(run.verify())
    total = sum(count for _, _, count in run.storage().values())
    return f"intact: {len(paths)} datasets, {show_size(total)}, every block of rows agrees"
