"""ImageNet's three recipes on Imagenette, streamed, from files to figure: narrower networks, smaller images.

    PYTHONPATH=. python3 tests/benchmarks/imagenette.py --archive imagenette2-128-jpeg.tar.gz --out imagenette

Imagenette is ten classes of ImageNet, 9,469 and 3,925 photographs as train/CLASS and test/CLASS; its copy of 128 pixels
is unpacked into OUT/images. By default every width is a sixteenth of the recipe's, and images have 128 pixels, of which
146 are the shorter side when they are scored: as 224 are of 256. What is kept: the layout of blocks, k, P and A, the
views, the constants, SGD at 0.1 that drops after 20 and 40 of 45 parts of the epochs. What is not: 45 epochs in batches
of 256, of which ten classes make too few steps for an hour of two cores: 9 epochs here, in batches of 64.

A forecast for two cores, not a measurement: 50 minutes for all three. Single batches, timed by the CPU time of one
thread, make 107, 99 and 116 s an epoch of all eight blocks (k = 1, 2, 3; bfloat16), views 75 s, and scoring and dumps
280 s in all; 5 minutes are added for probes, and three quarters of both cores counted.

It runs the commands that it prints. Given again, it goes on: what is trained is not trained again, a training that was
stopped goes on from its state, and rows that stand are not fitted again. --dry-run says what each training would take.
For a GPU, the whole width, all 45 epochs, and an archive of larger photographs:

    PYTHONPATH=. python3 tests/benchmarks/imagenette.py --archive imagenette2.tgz --out whole --share 1 --side 224 \\
        --epochs 45 --batch 256 --probes linear,cnn-1

--toy takes two blocks, one epoch and 400 images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from layerwise.errors import UserError
from layerwise.recipes import recipe

RECIPES = ("imagenet-k1", "imagenet-k2", "imagenet-k3")
ASKED = ("share", "side", "epochs", "depth", "batch", "seed", "subset")  # what a folder of results is of


def training(name: str, words: argparse.Namespace) -> list[str]:
    """Return the command that trains a recipe at the size that is asked for."""
    net = recipe(name).network
    blocks = [j for j in net.downsample if j <= words.depth]
    fields = {
        "network.downsample": ",".join(map(str, blocks)), "data.image_size": words.side,
        "data.eval_resize": round(words.side * 256 / 224), "data.label": "imagenette",
        "training.batch_size": words.batch, "training.lr_every": max(1, round(words.epochs * 20 / 45)),
    }  # fmt: skip
    width, aux_width = (max(1, value // words.share) for value in (net.width, net.aux_width))
    command = ["layerwise-train", name, "--data-dir", str(words.out / "images"), "--seed", str(words.seed)]
    command += ["--width", str(width), "--aux-width", str(aux_width), "--depth", str(words.depth)]
    command += ["--epochs", str(words.epochs), "--subset", str(words.subset), "--max-size", "20GB"]
    command += [part for path, value in fields.items() for part in ("--set", f"{path}={value}")]
    return [*command, "--out", str(words.out / f"{name}.h5")]


def run(command: Sequence[str]) -> None:
    """Print a command and run it; end where it does not succeed."""
    print("$", " ".join(command), flush=True)
    done = subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def unpack(archive: Path | None, folder: Path) -> None:
    """Unpack the photographs, once, without the folder around train/ and test/ (or val/) that some archives have."""
    if folder.is_dir():
        return
    if archive is None:
        raise UserError(f"{folder} is not there: give the archive of Imagenette by --archive.")
    begun = folder.with_name(f"{folder.name}.begun")
    with tarfile.open(archive) as tar:
        tar.extractall(begun, filter="data")
    inside = begun if (begun / "train").is_dir() else next(path for path in begun.iterdir() if path.is_dir())
    inside.rename(folder)


def require_same(words: argparse.Namespace) -> None:
    """Raise UserError where a folder holds results of another size than what is asked for."""
    path, asked = words.out / "asked.json", {name: getattr(words, name) for name in ASKED}
    if path.exists() and (kept := json.loads(path.read_text())) != asked:
        raise UserError(f"{words.out} holds networks of {kept}, not of {asked}. Give another --out.")
    path.write_text(json.dumps(asked))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--out", type=Path, default=Path("imagenette"))
    parser.add_argument("--share", type=int, default=16, help="widths are those of the recipes over it")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subset", type=int, default=0)
    parser.add_argument("--probes", default="linear")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--toy", action="store_true")
    words = parser.parse_args()
    if words.toy:
        words.epochs, words.depth, words.subset = 1, 2, 400
    return words


def main() -> None:
    words = arguments()
    words.out.mkdir(parents=True, exist_ok=True)
    try:
        require_same(words)
        unpack(words.archive, words.out / "images")
    except UserError as error:
        sys.exit(f"error: {error}")
    for name in words.recipes:
        if words.dry_run or not (words.out / f"{name}.h5").exists():
            run([*training(name, words), *(["--dry-run"] if words.dry_run else [])])
    if not words.dry_run:
        runs = [str(words.out / f"{name}.h5") for name in words.recipes]
        run(["probe-depth", *runs, "--probe", words.probes])
        run(["separability-figure", *runs, "--force", "-o", str(words.out / "figure.pdf")])
        run(["separability-table", *runs, "--force", "-o", str(words.out / "table.md")])


if __name__ == "__main__":
    main()
