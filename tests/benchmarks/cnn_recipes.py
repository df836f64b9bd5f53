"""Ways to train a CNN-p probe, compared on the validation fold of given runs: the table in docs/protocol.md.

    python -m tests.benchmarks.cnn_recipes cifar.h5 fashion.h5 --depths 1,4 --probes cnn-1:64,cnn-2:32

Each way is trained once for 12 epochs, and scored after 6 and after 12. One cycle has no state of worth after half of
it, so it is trained a second time for 6. The test split is never opened.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.hardware import pick_precision, products
from layerwise.model.batch_norm import settling
from layerwise.model.seeds import derive_seed
from layerwise.runfile import RunFile
from layerwise.training.problem import autocast
from probes.cnn.reading import Labelled, number_type
from probes.cnn.schedule_free import WARM_UP, WEIGHT_DECAY, ScheduleFreeAdamW
from probes.cnn.standardiser import ChannelStandardiser
from probes.cnn.training import BATCH, PRODUCTS, Design, new_probe
from probes.tasks.task import Task

EPOCHS = 12


class Way:
    """One probe in training. `score_points`: the epochs after which it is scored, by the weights `weights()` gives."""

    def __init__(self, probe: nn.Module, rate: float, total: int, score_points: Sequence[int]):
        self.probe, self.rate, self.total, self.score_points, self.t = probe, rate, total, score_points, 0
        self.parameters = list(probe.parameters())
        self.start()

    def start(self) -> None:
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, weight_decay=WEIGHT_DECAY)

    def step(self, loss: Tensor) -> None:
        share = self.t / self.total
        for group in self.optimizer.param_groups:
            group["lr"] = self.at(share)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.t += 1

    def at(self, share: float) -> float:
        raise NotImplementedError

    def weights(self) -> dict[str, list[Tensor]]:
        return {"": self.parameters}


class OneCycle(Way):
    """The recipe of protocol 2."""

    def at(self, share: float) -> float:
        if share < 0.3:
            start = self.rate / 25
            return start + (self.rate - start) * (1 - math.cos(math.pi * share / 0.3)) / 2
        return self.rate * (1 + math.cos(math.pi * (share - 0.3) / 0.7)) / 2


class Averaged(Way):
    """A constant rate after warm-up; averages of the weights in which step s of t weighs about (s / t)^eta."""

    ETAS = (1, 3, 8)

    def start(self) -> None:
        super().start()
        self.means = {eta: [p.detach().clone() for p in self.parameters] for eta in self.ETAS}

    def at(self, share: float) -> float:
        return self.rate * min(1.0, (share + 1 / self.total) / WARM_UP)

    def step(self, loss: Tensor) -> None:
        super().step(loss)
        for eta, mean in self.means.items():
            torch._foreach_lerp_(mean, [p.detach() for p in self.parameters], (eta + 1) / (self.t + eta))

    def weights(self) -> dict[str, list[Tensor]]:
        return {f" eta {eta}": mean for eta, mean in self.means.items()}


class ScheduleFree(Way):
    """The recipe of protocol 3."""

    def start(self) -> None:
        self.free = ScheduleFreeAdamW(self.parameters, self.rate)

    def step(self, loss: Tensor) -> None:
        self.free.zero_grad()
        loss.backward()
        self.free.advance(WARM_UP * self.total)
        self.free.step()
        self.t += 1

    def weights(self) -> dict[str, list[Tensor]]:
        return {"": self.free.x}


WAYS: dict[str, tuple[type[Way], tuple[float, ...]]] = {
    "one cycle": (OneCycle, (0.003, 0.01)),
    "constant, averaged": (Averaged, (0.001, 0.003, 0.01)),
    "schedule-free": (ScheduleFree, (0.003, 0.01, 0.03)),
}


def ways(new: Callable[[], nn.Module], steps: int) -> Iterator[tuple[str, float, Way]]:
    for name, (kind, rates) in WAYS.items():
        for rate in rates:
            points = (EPOCHS,) if kind is OneCycle else (EPOCHS // 2, EPOCHS)
            yield name, rate, kind(new(), rate, EPOCHS * steps, points)
            if kind is OneCycle:
                yield name, rate, kind(new(), rate, EPOCHS // 2 * steps, (EPOCHS // 2,))


def batches(data: Labelled, seed: int, by: ChannelStandardiser) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in data.shuffled(BATCH, seed):
        yield by(x), y


@torch.no_grad()
def scored(
    way: Way, weights: list[Tensor], train: Labelled, held: Labelled, by: ChannelStandardiser, precision: str
) -> list[float]:
    """Return train and validation accuracy in %, and validation log-loss in nats, of the given weights."""
    probe = copy.deepcopy(way.probe)
    for p, value in zip(probe.parameters(), weights, strict=True):
        p.copy_(value)
    with autocast(precision, train.device):
        with settling(probe):
            for x, _ in batches(train, 0, by):
                probe(x)
        found = []
        for data in (train, held):
            logits, label = [], []
            for x, y in batches(data, 0, by):
                logits.append(probe(x).float())
                label.append(y)
            every, y = torch.cat(logits), torch.cat(label)
            found += [100 * float((every.argmax(1) == y).float().mean()), float(F.cross_entropy(every, y))]
    return [found[0], found[2], found[3]]


def compare(path: Path, depth: int, p: int, width: int) -> list[dict[str, object]]:
    device, precision = torch.device("cpu"), pick_precision("auto", torch.device("cpu"))
    rows: list[dict[str, object]] = []
    with RunFile(path) as run, products(precision):
        dtype = number_type(run, depth)
        train, held = (Labelled(Task(run), depth, [s], device=device, dtype=dtype) for s in ("train", "validation"))
        by = ChannelStandardiser(train, len(train), PRODUCTS[precision])
        steps = -(-len(train) // BATCH)

        def new() -> nn.Module:
            return new_probe(Design(p, width, 0), run.depth_shape(depth), 10, depth)

        running = list(ways(new, steps))
        for epoch in range(EPOCHS):
            going = [way for _, _, way in running if way.t < max(way.score_points) * steps]
            for way in going:
                way.probe.train()
            for x, y in batches(train, derive_seed(0, "probe order", depth) + epoch, by):
                for way in going:
                    with autocast(precision, device):
                        logits = way.probe(x)
                    way.step(F.cross_entropy(logits.float(), y))
            for name, rate, way in running:
                if epoch + 1 in way.score_points and way in going:
                    for which, weights in way.weights().items():
                        numbers = scored(way, weights, train, held, by, precision)
                        rows.append(
                            {
                                "run": path.stem,
                                "depth": depth,
                                "probe": f"cnn-{p}",
                                "M": width,
                                "way": name + which,
                                "rate": rate,
                                "epochs": epoch + 1,
                                **dict(zip(("train", "validation", "loss"), numbers, strict=True)),
                            }
                        )
                        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--depths", default="1,4")
    parser.add_argument("--probes", default="cnn-1:64,cnn-2:32")
    parser.add_argument("--out", type=Path, default=Path("cnn-recipes.csv"))
    words = parser.parse_args()
    rows = []
    for probe in words.probes.split(","):
        name, width = probe.split(":")
        for path in words.runs:
            for depth in map(int, words.depths.split(",")):
                rows += compare(path, depth, int(name.removeprefix("cnn-")), int(width))
                pd.DataFrame(rows).to_csv(words.out, index=False)
    table = pd.DataFrame(rows)
    means = table.groupby(["way", "rate", "epochs"])[["train", "validation", "loss"]].mean()
    print(means.round(2).to_string())


if __name__ == "__main__":
    main()
