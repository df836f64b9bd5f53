"""What a file says of its making: run_id, time, command, software, machine, durations."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
import uuid
from importlib import metadata
from pathlib import Path

import torch

from layerwise import __version__

LIBRARIES = ("torch", "torchvision", "numpy", "h5py", "scikit-learn")


def software() -> dict[str, str]:
    """Return the versions of this project, Python and the libraries that compute, and the commit if known."""
    versions = {"layerwise": __version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in LIBRARIES}
    commit = _commit()
    return versions | ({"commit": commit} if commit else {})


def provenance(device: torch.device, data_dir: Path | None, seconds: dict[str, float]) -> dict[str, str | int]:
    """Return the attributes of /provenance; two runs of one configuration differ here and nowhere else."""
    return {
        "run_id": uuid.uuid4().hex,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": json.dumps(sys.argv),
        "software": json.dumps(software(), sort_keys=True),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "data_dir": "" if data_dir is None else str(data_dir.absolute()),
        "seconds": json.dumps({name: round(value, 3) for name, value in seconds.items()}),
    }


def _commit() -> str | None:
    """Return the commit of the source tree that this package runs from; None where it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
