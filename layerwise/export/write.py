"""The export of a trained run: a file for others to use, published only if it computes what the run says.

The program is written, read back from the disk and run on images; what it says of them must be what the run file keeps
of them, within rounding. Only then does the file get its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerwise.activations import load_network
from layerwise.errors import UserError
from layerwise.export import formats as export_formats
from layerwise.export.predictor import Predictor, build_predictor
from layerwise.hardware import exact_float32
from layerwise.images import images_if_any
from layerwise.model.ensemble import ensemble
from layerwise.model.network import normalise
from layerwise.publication import published, refuse_existing
from layerwise.runfile import RunFile
from layerwise.runfile.provenance import software

# Images compared, in batches of 1 and of all others, since a traced program may hold on to the size of its batch.
CHECKED = 64
# Sums of float32 products in another order differ by some 1e-6 of the largest output, a wrong weight by far more.
ROUNDING = 1e-4
VALUES = {"uint8": "0 to 255", "float": "0 to 1", "normalised": "(pixel / 255 - mean) / std"}


@dataclass(frozen=True)
class Exported:
    """What was exported: metadata as the file holds it, and the check that it passed.

    parameters: of blocks and auxiliaries. images: how many were compared, and which: test images of the run, or random
    ones where it keeps none. difference: the largest of all outputs, absolute. allowed: what rounding may reach.
    """

    path: Path
    metadata: dict[str, Any] = field(repr=False)  # long: it holds the whole configuration
    parameters: int
    images: str
    difference: float
    allowed: float


def export_run(
    run: RunFile,
    out: Path,
    *,
    depth: int | None = None,
    weighting: str | None = None,
    takes: str = "uint8",
    force: bool = False,
) -> Exported:
    """Write the predictor of one depth as a file that needs nothing of this package, and compare it with the run.

    Args:
        out: file to write; its suffix, .pt2 or .onnx, is the format.
        depth, weighting, takes: as of `layerwise.export.predictor.build_predictor`.

    Raises UserError for a predictor the run does not have, a file that exists, or outputs that differ by more than
    ROUNDING of the largest one; nothing is then published.
    """
    export_formats.require_format(out)
    refuse_existing(out, force)
    predictor = build_predictor(run, depth, weighting, takes)
    images, expected, which = _known(run, predictor)
    given = as_taken(images, predictor)
    metadata = describe(run, predictor)
    with exact_float32(), torch.no_grad():
        program = export_formats.trace(predictor, torch.from_numpy(given[:1].repeat(2, axis=0)))
        with published(out, force=force) as temporary:
            export_formats.write(program, temporary, out.suffix, json.dumps(metadata, sort_keys=True))
            compute = export_formats.read(temporary, out.suffix)
            found = np.concatenate([compute(batch) for batch in (given[:1], given[1:]) if len(batch)])
            difference, allowed = _compared(found, expected, out)
    parameters = sum(value.numel() for value in predictor.parameters())
    return Exported(out, metadata, parameters, f"{len(given)} {which}", difference, allowed)


def as_taken(images: np.ndarray, predictor: Predictor) -> np.ndarray:
    """Return uint8 images [n, C, H, W] as the predictor takes them: as they are, in [0, 1], or as x_0."""
    if predictor.takes == "uint8":
        return images
    pixels = torch.from_numpy(images)
    if predictor.takes == "float":
        return (pixels.to(torch.float32) / 255).numpy()
    return normalise(pixels, predictor.mean, predictor.std).numpy()


def describe(run: RunFile, predictor: Predictor) -> dict[str, Any]:
    """Return the metadata of an exported file, in the words of docs/export.md."""
    config, about = run.config, run.dataset
    assert config is not None  # build_predictor refuses a run without one
    depth = predictor.joined[-1]
    word = "" if predictor.weighting is None else f"ensemble_{predictor.weighting}_"
    scores = run.scores(depth)
    accuracy = {s: scores[f"{word}{s}_accuracy"] for s in run.splits if f"{word}{s}_accuracy" in scores}
    return {
        "format": "layerwise-export",
        "format_version": 1,
        "run_id": run.run_id,
        "content_digest": run.content_digest,
        "network": run.network_name,
        "config": json.loads(config.to_json()),
        "depth": depth,
        "auxiliaries": list(predictor.joined),
        "ensemble": predictor.weighting,
        "dataset": {"name": about["name"], "fingerprint": about["fingerprint"]},
        "classes": about["classes"],
        "input": {
            "name": "images",
            "type": "uint8" if predictor.takes == "uint8" else "float32",
            "shape": ["n", *run.depth_shape(0)],
            "values": VALUES[predictor.takes],
            "normalisation": about["normalisation"],
        },
        "output": {
            "name": "scores",
            "type": "float32",
            "shape": ["n", len(about["classes"])],
            "values": "logits" if predictor.weighting is None else "log-probabilities",
        },
        "accuracy": accuracy,
        "software": software(),
    }


def describe_export(done: Exported) -> Iterator[str]:
    """Yield the lines that say what was exported, and how it was checked."""
    about = done.metadata
    count, weighting = len(about["auxiliaries"]), about["ensemble"]
    said = "its auxiliary" if weighting is None else f"the ensemble ({weighting}) of {count} auxiliaries"
    yield f"network  {about['network']}: depth {about['depth']} with {said}"
    yield f"         {done.parameters:,} parameters"
    for name in ("input", "output"):
        part = about[name]
        yield f"{name:<7}  {part['name']}: {part['type']} [{', '.join(map(str, part['shape']))}], {part['values']}"
    yield f"checked  on {done.images}"
    yield f"         largest difference {done.difference:.1e}, rounding may reach {done.allowed:.1e}"


def _known(run: RunFile, predictor: Predictor) -> tuple[np.ndarray, np.ndarray, str]:
    """Return images uint8 [n, C, H, W], what the run says of them [n, n_classes], and which images these are."""
    images, which = images_if_any(run, "test", slice(CHECKED)), f"test images, with the outputs in {run.path.name}"
    if images is not None:
        logits = [kept[: len(images)] for j in predictor.joined if (kept := run.outputs(j, "test")) is not None]
    else:
        images = np.random.default_rng(0).integers(0, 256, (CHECKED, *run.depth_shape(0)), dtype=np.uint8)
        logits, which = _recomputed(run, images, predictor.joined), f"random images, since {run.path.name} keeps none"
    return images, logits[0] if predictor.weighting is None else ensemble(logits, predictor.weighting), which


@torch.no_grad()
def _recomputed(run: RunFile, images: np.ndarray, depths: Sequence[int]) -> list[np.ndarray]:
    """Return logits float32 [n, n_classes] at some depths by the network as the rest of this package computes it."""
    network = load_network(run, torch.device("cpu"))
    assert network is not None  # a predictor was built from it
    x, found = network.normalise(torch.from_numpy(images)), []
    for j in range(1, depths[-1] + 1):
        x = network.advance(x, j - 1, j)
        if j in depths:
            found.append(network.auxiliaries[j - 1](x).numpy())
    return found


def _compared(found: np.ndarray, expected: np.ndarray, out: Path) -> tuple[float, float]:
    """Return the largest difference, and what rounding allows; raise UserError where it is more."""
    difference = float(np.abs(found - expected).max())
    allowed = ROUNDING * float(np.abs(expected).max())
    if not difference <= allowed:  # also where either is NaN
        raise UserError(
            f"{out} was not written: what it says of images differs by {difference:.1e} from what the run says, and "
            f"rounding explains {allowed:.1e}. Export it in the other format, or with a newer torch (for .onnx a newer "
            "onnxscript)."
        )
    return difference, allowed
