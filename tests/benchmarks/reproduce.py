"""Makes Table 2 of the paper anew on the whole CIFAR-10: its networks for k = 3, 2, 1, then two by faster schedules.

    PYTHONPATH=. python3 tests/benchmarks/reproduce.py --data-dir DIR [--archives A [B]] [--out table2]
        [--budget SECONDS] [--toy]

DIR holds CIFAR-10 as train/CLASS and test/CLASS. Each recipe is trained on all 50,000 training images, in bfloat16
where the device has it, and scored on the 10,000 test images: every auxiliary, the ensembles up to it, and a linear
probe of every depth. After every step it writes OUT.json, OUT.csv (a row for each network, depth and probe) and OUT.md,
the table of docs/results.md; the run files stand in OUT-runs/.

Given again, it goes on: a network whose rows are all in OUT.json is not trained again, even where its run file is gone,
and one that was stopped goes on from its state. The first network of a call is begun whatever it takes; another one is
left out, and named, where by the rate of those that ran before it would not end within `--budget` seconds.

On a GPU that takes 64 MiB and 450 s a call, the data travel in two parts. The first call unpacks one, and says that the
other is missing. The second is expected to train for k = 3 and 2 (140 and 110 s on an H100 or H200) and by the faster
schedules, and given again without --archives for k = 1 (300 s); OUT is a folder that comes back:

    PYTHONPATH=. python3 tests/benchmarks/reproduce.py --data-dir ~/c10 --archives .data/cifar10-1of2.tar.gz
    PYTHONPATH=. python3 tests/benchmarks/reproduce.py --data-dir ~/c10 --archives .data/cifar10-2of2.tar.gz \\
        --out ~/table2; cp ~/table2.* "$OUT"

--toy runs the same at toy size on any images of 32x32 pixels, on a CPU in a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

import probes
from analysis.published import greedy
from layerwise.commandline import set_verbosity
from layerwise.config import RunConfig
from layerwise.datasets.dataset import load_configured
from layerwise.errors import UserError
from layerwise.hardware import pick_device
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.runfile.provenance import provenance
from layerwise.settings import set_fields
from layerwise.training.operations import count_operations
from layerwise.training.run import resolve, train_run
from probes.csvfile import write_csv
from tests.benchmarks.cifar10_folder import require_whole, unpack

RECIPES = ("cifar10-k3", "cifar10-k2", "cifar10-k1", "cifar10-k3-fast", "cifar10-best")
PAPER = {f"cifar10-k{k}": greedy("cifar10", k) for k in (1, 2, 3)}
# "ensemble" weights logits by 2^j, as the paper does on CIFAR-10, "ensemble-softmax" probabilities, as on ImageNet.
OWN_CLASSIFIERS = ("auxiliary", "ensemble", "ensemble-softmax")
TOY = {
    "network.width": 8, "network.aux_width": 8, "training.epochs": 1, "training.batch_size": 50, "data.subset": 200,
    "data.label": "toy",
}  # fmt: skip
MARGIN = 1.1  # of training expected: the rate of small maps is below that of large ones


class Table:
    """The networks and rows found so far, and where they are written.

    networks: facts of each by its recipe. rows: by recipe, a record for each depth and probe.
    """

    def __init__(self, data_dir: Path, out: Path, budget: float, toy: bool):
        self.start = time.perf_counter()
        self.data_dir, self.out, self.budget, self.toy = data_dir, out, budget, toy
        self.device = pick_device("auto")
        self.device_name = str(provenance(self.device, None, {})["device"])
        self.networks: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._resume()

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - (time.perf_counter() - self.start)

    def _resume(self) -> None:
        """Take up what an earlier call wrote; raise UserError where it was of another size."""
        if not (path := self._path("json")).exists():
            return
        kept = json.loads(path.read_text())
        if kept["toy"] != self.toy:
            size = {True: "toy size", False: "full size"}
            raise UserError(
                f"{path} is of {size[kept['toy']]} and this call of {size[self.toy]}. Give another name by --out."
            )
        self.networks = {facts["recipe"]: facts for facts in kept["networks"]}
        for row in kept["rows"]:
            self.rows.setdefault(row["recipe"], []).append(row)

    def _path(self, ending: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{ending}")

    def write(self) -> None:
        """Write all three files; a call that is killed meanwhile leaves the JSON of before."""
        rows = [row for name in RECIPES for row in self.rows.get(name, [])]
        kept = {"toy": self.toy, "networks": list(self.networks.values()), "rows": rows}
        (new := self._path("json.new")).write_text(json.dumps(kept, indent=1))
        new.replace(self._path("json"))
        write_csv(pd.DataFrame(rows), self._path("csv"))
        self._path("md").write_text("\n".join(markdown(rows)) + "\n")

    def configured(self, name: str) -> RunConfig:
        """Return the configuration of a recipe on the images of the folder."""
        fields = {"data.dataset": "imagefolder", "data.label": "cifar10", "data.holdout": 0.0}
        return set_fields(recipe(name), fields | (TOY if self.toy else {}))

    def expected(self, operations: int) -> float:
        """Return the seconds of a network by those that ran on this device; 0 where none did."""
        ran = [facts for facts in self.networks.values() if facts["device"] == self.device_name and facts["finished"]]
        if not ran:
            return 0.0
        rate = sum(facts["operations"] for facts in ran) / sum(facts["training_seconds"] for facts in ran)
        return MARGIN * operations / rate + max(facts["rest_seconds"] for facts in ran)

    def run(self) -> list[str]:
        """Train and probe what is not finished, within the budget; return the networks that failed."""
        unfinished = [name for name in RECIPES if not self.networks.get(name, {}).get("finished")]
        failed: list[str] = []
        if unfinished:
            self.dataset = load_configured(self.configured(unfinished[0]).data, self.data_dir)
        for name in unfinished:
            config = resolve(self.configured(name), self.dataset.sizes, self.device)
            operations = sum(count_operations(config, self.dataset.sizes).training)
            if name != unfinished[0] and (expected := self.expected(operations)) > self.left:
                print(
                    f"left out: {name} would take about {expected:.0f} s, and {self.left:.0f} s are left; the same "
                    "command goes on with it"
                )
                continue
            print(f"== {name} ({operations:.2g} operations, {self.left:.0f} s left)", flush=True)
            try:
                self.reproduce(config, operations)
            except Exception:  # of one network: the others are worth their time
                traceback.print_exc()
                failed.append(name)
        return failed

    def reproduce(self, config: RunConfig, operations: int) -> None:
        """Train a recipe, or go on with it, score and probe it, and write what was found after each step."""
        path = self.out.with_name(f"{self.out.name}-runs") / f"{config.recipe}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            train_run(config, Place(out=path, device=self.device, data_dir=self.data_dir), dataset=self.dataset)
        start = time.perf_counter()
        with RunFile(path) as run:
            if run.config is None or replace(run.config, store=config.store) != config:
                raise UserError(f"{path} was trained by another configuration. Move it away, or give another --out.")
            facts = self._facts(run, operations)
            self._keep(config, facts, probes.fit(run, list(OWN_CLASSIFIERS)))
            linear = probes.fit(run, "linear", pixels=False)
        facts["rest_seconds"] += time.perf_counter() - start
        self._keep(config, facts | {"finished": True}, linear)

    def _facts(self, run: RunFile, operations: int) -> dict[str, Any]:
        """Return what is said of a network."""
        seconds = json.loads(run.provenance["seconds"])
        epochs = run.epoch_seconds()
        assert run.config is not None and epochs is not None
        # Of a training that was stopped, the file's own time is that of the last call, the epochs' that of all.
        training = max(seconds["train"], float(epochs.sum()))
        return {
            "recipe": run.config.recipe, "run_id": run.run_id, "finished": False,
            "operations": operations, "training_seconds": training,
            "rest_seconds": seconds["score"] + seconds["dump"],
            "device": run.provenance["device"], "precision": run.config.precision, "seed": run.config.seed,
            "software": json.loads(run.provenance["software"]),
        }  # fmt: skip

    def _keep(self, config: RunConfig, facts: dict[str, Any], table: pd.DataFrame) -> None:
        name, last = config.recipe, config.network.depth
        table = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
        number = PAPER.get(name)
        paper = {"auxiliary": number.top1, "ensemble": number.ensemble} if number and number.ensemble else {}
        rows = [
            {
                "recipe": name, "k": config.network.k, "depth": int(row.depth), "probe": row.probe,
                "accuracy": row.value, "ci_low": row.ci_low, "ci_high": row.ci_high,
                "paper": round(paper[row.probe] / 100, 3) if row.depth == last and row.probe in paper else None,
                "n_train": int(row.n_train), "n_test": int(row.n_samples),
                "training_seconds": round(facts["training_seconds"], 1), "device": facts["device"],
                "precision": facts["precision"], "seed": facts["seed"],
            }
            for row in table.itertuples()
        ]  # fmt: skip
        had = [row for row in self.rows.get(name, []) if row["probe"] not in set(table["probe"])]
        self.networks[name], self.rows[name] = facts, had + rows
        self.write()
        print(*(f"{name}, depth {r['depth']}, {r['probe']}: {r['accuracy']:.2%}" for r in rows), sep="\n", flush=True)


def markdown(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the tables of docs/results.md: the last depth beside the paper's, then linear probes of every depth."""
    yield "| network | paper, % (ensemble) | accuracy, % | ensemble, % | training | device |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in RECIPES:
        number, own = PAPER.get(name), {(row["probe"], row["depth"]): row for row in rows if row["recipe"] == name}
        paper = f"{number.top1} ({number.ensemble})" if number else ""
        if not own:
            yield f"| {name} | {paper} | not yet run | | | |"
            continue
        last = max(depth for _, depth in own)
        one, joined = own["auxiliary", last], own["ensemble", last]
        title = name if one["n_train"] == 50_000 else f"{name}, on {one['n_train']:,} images"
        device = f"{one['device']}, {one['precision']}"
        yield f"| {title} | {paper} | {cell(one)} | {cell(joined)} | {one['training_seconds']:.0f} s | {device} |"
    linear = [row for row in rows if row["probe"] == "linear"]
    if linear:
        depths = range(max(row["depth"] for row in linear) + 1)
        yield "\n| linear probe, % | " + " | ".join(f"depth {depth}" for depth in depths) + " |"
        yield "| --- |" + " --- |" * len(depths)
    for name in dict.fromkeys(row["recipe"] for row in linear):
        found = {row["depth"]: cell(row) for row in linear if row["recipe"] == name}
        yield f"| {name} | " + " | ".join(found.get(depth, "") for depth in depths) + " |"


def cell(row: dict[str, Any]) -> str:
    """Return "91.70 (91.14 to 92.22)"."""
    return f"{100 * row['accuracy']:.2f} ({100 * row['ci_low']:.2f} to {100 * row['ci_high']:.2f})"


def main(words: list[str] | None = None) -> int:
    """Make the table, or go on with it; return 1 where a network failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of train/CLASS and test/CLASS")
    parser.add_argument("--archives", type=Path, nargs="+", default=[], help="parts to unpack into it first")
    parser.add_argument("--out", type=Path, default=Path("table2"), help="OUT.json, OUT.csv, OUT.md and OUT-runs/")
    parser.add_argument("--budget", type=float, default=440, help="seconds that all of it may take")
    parser.add_argument("--toy", action="store_true", help="toy size, for a test on any machine")
    given = parser.parse_args(words)
    set_verbosity(quiet=False, verbose=False)
    table = Table(given.data_dir, given.out, given.budget, given.toy)
    unpack(given.archives, given.data_dir)
    if not given.toy:
        require_whole(given.data_dir)
    failed = table.run()
    print(f"{', '.join(failed) or 'no network'} failed; all of it took {given.budget - table.left:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
