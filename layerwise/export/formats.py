"""The two formats of an exported network, PyTorch's .pt2 and ONNX: how each is written, and run as written.

Both hold weights, graph and metadata in one file, which needs nothing of this package to be used.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from layerwise.errors import UsageError, UserError, missing_package
from layerwise.units import show_size

SUFFIXES = (".pt2", ".onnx")
METADATA = "layerwise.json"  # name of the metadata, a JSON text, inside either file
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_LIMIT = 2**31 - 2**20  # bytes: a protobuf message is smaller than 2 GiB, and graph and metadata want room too

Run = Callable[[np.ndarray], np.ndarray]


def require_format(path: Path) -> None:
    """Raise UsageError where a file's name ends in no known format, UserError where a format's packages are missing."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"-o is {str(path)!r}, but an exported network's name ends in {' or '.join(SUFFIXES)}.")
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if path.suffix == ".onnx" and missing:
        raise missing_package(path.name, missing, "onnx", ", or give a name that ends in .pt2.")


def trace(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return the program of a module whose one argument `images` [n, ...] may have any n.

    example: images [2, ...]; at 1 the tracer could take n for a constant.

    Raises UserError where the tracer cannot follow a block.
    """
    dynamic = {"images": {0: torch.export.Dim("n")}}
    try:
        return torch.export.export(module, (example,), dynamic_shapes=dynamic)
    except Exception as error:  # of many classes, most of them private to torch
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"torch.export cannot follow this network: {reason.rstrip('.')}. A block must do the same for every image "
            "and every size of batch: no branch on values of a tensor."
        ) from error


def write(program: torch.export.ExportedProgram, path: Path, suffix: str, metadata: str) -> None:
    """Write a program in the format of a suffix, with its metadata, to `path`, whose own name is free.

    Raises UserError for a network that is too large for one ONNX file.
    """
    if suffix == ".pt2":
        # In memory first: on a full disk torch's writer ends the process by SIGABRT.
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={METADATA: metadata})
        path.write_bytes(content.getbuffer())
        return
    size = sum(value.nbytes for value in program.state_dict.values())
    if size > ONNX_LIMIT:
        raise UserError(
            f"the network's weights are {show_size(size)}, but one ONNX file holds less than 2 GiB; export it as .pt2."
        )
    made = torch.onnx.export(program, dynamo=True, verbose=False, output_names=["scores"])
    assert made is not None  # None only of the exporter that dynamo=True replaces
    made.model.metadata_props[METADATA] = metadata
    made.save(path, external_data=False)


def read(path: Path, suffix: str) -> Run:
    """Return a function that runs an exported file as it stands on the disk: images [n, C, H, W] to scores."""
    if suffix == ".pt2":
        with path.open("rb") as file:
            module = torch.export.load(file).module()
        return lambda images: module(torch.from_numpy(images)).numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]
