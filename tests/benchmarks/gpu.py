"""Makes the whole GPU table in one run: ours, the published loop and the floor at each depth, memory, and checks.

    PYTHONPATH=. python3 tests/benchmarks/gpu.py [--toy] [--data-dir DIR] [--out gpu-table] [--budget SECONDS]

Prints as it goes, writes OUT.json and OUT.md after every section, and goes on where a section fails. Takes at most
`--budget` seconds (default 440): what does not fit is extrapolated, and the table says so. Without data it makes images
that can be learned. --toy runs the same code at toy size, on a CPU too.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import layerwise.training.run
from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Split, load_dataset
from layerwise.datasets.split import channel_statistics
from layerwise.hardware import has_bfloat16, products
from layerwise.model.counts import Problem, count_problems
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training import capture
from layerwise.training.batches import DeviceSplit
from layerwise.training.loop import solve
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.problem import AuxiliaryProblem
from layerwise.training.run import train_run
from layerwise.training.stage_batches import Kept, Recomputed
from tests.benchmarks import published

Section = Callable[["Table"], dict[str, Any]]


class Enough(Exception):
    """Ends a loop that has been timed."""


class Table:
    """What is measured, on what, and what was found so far."""

    def __init__(self, toy: bool, data_dir: Path | None, out: Path, budget: float):
        self.toy, self.data_dir, self.out, self.budget = toy, data_dir, out, budget
        self.start = time.perf_counter()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        toy_fields = {
            "network.width": 8, "network.aux_width": 8, "network.depth": 2, "network.downsample": (2,),
            "training.epochs": 1, "training.batch_size": 16,
        }  # fmt: skip
        precision = "bf16" if has_bfloat16(self.device) else "fp32"
        fields = {"data.holdout": 0.0, "precision": precision} | (toy_fields if toy else {})
        self.config = set_fields(recipe("cifar10-k3"), fields)
        self.steps = 2 if toy else 200  # of ours that are timed; of the published loop half as many
        self.found: dict[str, Any] = {}
        self.rate = 1e12

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - (time.perf_counter() - self.start)

    def load(self) -> None:
        """Load the images, or make them."""
        if self.data_dir is None:
            self.dataset = made_images(*((72, 32) if self.toy else (50_000, 10_000)))
        else:
            kind = "imagefolder" if (self.data_dir / "train").is_dir() else "cifar10"
            self.dataset = load_dataset(kind, holdout=0.0, data_dir=self.data_dir)
        self.data = {"train": DeviceSplit(self.dataset.splits["train"], self.device)}
        self.n = len(self.data["train"])
        self.steps_an_epoch = self.data["train"].batches(self.config.training.batch_size)
        self.problems = count_problems(self.config.network, self.dataset.image_shape, 10)

    def network(self) -> LayerwiseNetwork:
        """Return a new network on the device."""
        data = self.dataset
        net = LayerwiseNetwork(self.config.network, data.image_shape, 10, data.mean, data.std, 0)
        return net.to(self.device)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], times: int, warm: int = 3) -> float:
        """Return the mean seconds of `work` called so many times."""
        for _ in range(warm):
            work()
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - start) / times

    def run(self, name: str, section: Section) -> None:
        """Run a section, keep and print what it found or how it failed, and write everything."""
        print(f"== {name} ({self.left:.0f} s left)", flush=True)
        start = time.perf_counter()
        try:
            found = section(self)
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"}
        found["section_seconds"] = round(time.perf_counter() - start, 1)
        self.found[name] = found
        print(json.dumps(found, indent=1, default=str), flush=True)
        self.out.with_suffix(".json").write_text(json.dumps(self.found, indent=1, default=str))
        self.out.with_suffix(".md").write_text("\n".join(markdown(self)) + "\n")


def made_images(n_train: int, n_test: int) -> Dataset:
    """Return images of ten classes that can be learned: a smooth pattern of the class under noise."""
    rng = np.random.default_rng(0)
    patterns = np.kron(rng.uniform(0, 255, (10, 3, 4, 4)), np.ones((8, 8)))

    def split(n: int) -> Split:
        label = np.arange(n, dtype=np.int64) % 10
        noise = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
        images = (0.3 * patterns[label].astype(np.float32) + 0.7 * noise).astype(np.uint8)
        return Split(images, label, np.arange(n))

    splits = {"train": split(n_train), "test": split(n_test)}
    mean, std = channel_statistics(splits["train"].images)
    return Dataset("made", tuple("0123456789"), splits, mean, std)


def step_operations(problems: list[Problem], j: int, batch: int, *, with_prefix: bool = True) -> int:
    """Return the operations of a training step of block j."""
    prefix = sum(p.block.operations for p in problems[: j - 1]) if with_prefix else 0
    return batch * (prefix + 2 * problems[j - 1].block.operations + 3 * problems[j - 1].auxiliary.operations)


def environment(table: Table) -> dict[str, Any]:
    """Name the machine."""
    on_gpu = table.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else None,
        "torch": torch.__version__,
        "precision": table.config.precision,
        "images": f"{table.dataset.name}: {table.n} of {table.dataset.image_shape}",
        "recipe": "cifar10-k3" + (" at toy size" if table.toy else ""),
    }


def rates(table: Table) -> dict[str, Any]:
    """Measure matrix multiplication: what the floor is computed with."""
    side = 512 if table.toy else 8192
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        n = side if name == "bf16" else side // 2
        a = torch.randn(n, n, device=table.device).to(dtype)
        found[f"{name}_tflops"] = 2 * n**3 / table.seconds(lambda a=a: a @ a, 20) / 1e12  # type: ignore[misc]
    table.rate = found[f"{table.config.precision}_tflops"] * 1e12
    return found


def stage(table: Table, net: LayerwiseNetwork, j: int, kind: type[Recomputed], config: RunConfig) -> Any:
    """Return what trains block j of `net`: the problem, and its source of batches."""
    prefix = FrozenPrefix(net, j - 1, config.precision)
    problem = AuxiliaryProblem(net.blocks[j - 1], net.auxiliaries[j - 1], config.training, config.precision)
    kept = {"folder": None} if kind is Kept else {}
    return problem, kind(table.data, prefix, config, j, **kept)


def timed_steps(table: Table, problem: AuxiliaryProblem, source: Recomputed, *, captured: bool = True) -> Any:
    """Return (seconds a step, seconds of the capture) of the real loop on enough epochs for the steps wanted."""
    steps, clock = table.steps, []
    warm = 2 * capture.UNCAPTURED + 2
    seen: list[capture.CapturedStep] = []
    original = capture.CapturedStep.__call__

    def counted(self: capture.CapturedStep, *tensors: torch.Tensor) -> None:
        seen[:] = [self]
        if not captured:
            self._calls = -(10**9)
        original(self, *tensors)
        if len(clock) in (warm, warm + steps):
            table.wait()
        clock.append(time.perf_counter())
        if len(clock) > warm + steps:
            raise Enough

    capture.CapturedStep.__call__ = counted  # type: ignore[method-assign]
    try:
        with products(table.config.precision):
            for _ in solve([problem], source.batches, range(10**6), table.steps_an_epoch, "timing", fetch=source.fetch):
                pass
    except Enough:
        pass
    finally:
        capture.CapturedStep.__call__ = original  # type: ignore[method-assign]
    if captured and table.device.type == "cuda" and not seen[0].is_captured:
        print("!! the step was NOT captured", flush=True)
    return (clock[warm + steps] - clock[warm]) / steps, seen[0].seconds


def ours(table: Table) -> dict[str, Any]:
    """Time our step at each depth: captured, kernel by kernel, and with a kept prefix; with the floor beside."""
    net, rows = table.network(), []
    fixed = set_fields(table.config, {"training.crop_padding": 0, "training.flip": False, "training.prefix": "cache"})
    batch = table.config.training.batch_size
    for j in range(1, table.config.network.depth + 1):
        problem, source = stage(table, net, j, Recomputed, table.config)
        eager, _ = timed_steps(table, problem, source, captured=False)
        problem, source = stage(table, net, j, Recomputed, table.config)
        seconds, compiling = timed_steps(table, problem, source)
        floor = step_operations(table.problems, j, batch) / table.rate
        row = {
            "depth": j, "ms": 1e3 * seconds, "eager_ms": 1e3 * eager, "capture_s": compiling, "floor_ms": 1e3 * floor
        }  # fmt: skip
        if j > 1:
            try:
                row |= kept_prefix(table, net, j, fixed)
            except RuntimeError as error:
                row["kept_failed"] = str(error)[:200]
        freeze(nn.ModuleList([net.blocks[j - 1], net.auxiliaries[j - 1]]))
        print(row, flush=True)
        rows.append(row)
    return {"rows": rows}


def kept_prefix(table: Table, net: LayerwiseNetwork, j: int, config: RunConfig) -> dict[str, float]:
    """Time the step of block j where its input is kept, and the filling."""
    start = time.perf_counter()
    problem, source = stage(table, net, j, Kept, config)
    table.wait()
    filled = time.perf_counter() - start
    seconds, _ = timed_steps(table, problem, source)
    floor = step_operations(table.problems, j, config.training.batch_size, with_prefix=False) / table.rate
    return {"kept_ms": 1e3 * seconds, "kept_floor_ms": 1e3 * floor, "fill_s": filled}


def published_loop(table: Table) -> dict[str, Any]:
    """Time the published loop's step at each depth, after its loader has run empty."""
    cfg, net = table.config.training, table.config.network
    sizes = published.Sizes(
        net.depth, net.width, net.aux_width, net.k, net.downsample, cfg.epochs, cfg.batch_size, cfg.crop_padding
    )
    published.exact()
    train, test = table.dataset.splits["train"], table.dataset.splits["test"]
    loader, _ = published.loaders(train.images, train.label, (test.images[:100], test.label[:100]), sizes)
    network, rows = published.Greedy(sizes).to(table.device), []
    warm, steps = (1, 4) if table.toy else (30, table.steps // 2)
    for j in range(1, net.depth + 1):
        optimizer = published.begin_block(network, j, 0.1)
        clock = published.train_epoch(network, j, optimizer, loader, table.device, warm + steps)
        rows.append({"depth": j, "ms": 1e3 * (clock[-1] - clock[warm]) / (len(clock) - 1 - warm)})
        print(rows[-1], flush=True)
    return {"rows": rows}


def whole_run(table: Table) -> dict[str, Any]:
    """Carry the recipe out by layerwise-train's own function, if it fits the budget; else fewer epochs, scaled."""
    epochs = table.config.training.epochs
    rows = table.found.get("ours", {}).get("rows", [])
    ours_s = [row["ms"] / 1e3 * table.steps_an_epoch * epochs for row in rows]
    theirs = table.found.get("published", {}).get("rows", [])
    theirs_s = [row["ms"] / 1e3 * table.steps_an_epoch * epochs for row in theirs]
    room = table.left - (1 if table.toy else 60)
    expected = 1.15 * sum(ours_s) + 5 if len(rows) == table.config.network.depth else 200  # as no row failed
    done = min(epochs, max(3, int(epochs * room / expected)))
    config = replace(table.config, training=replace(table.config.training, epochs=done))
    with loaded(table.dataset), tempfile.TemporaryDirectory() as folder:
        reset_peak(table)
        start = time.perf_counter()
        out = Path(folder) / "run.h5"
        scores = train_run(config, Place(out=out, device=table.device, max_size=10**12))
        wall = time.perf_counter() - start
        with RunFile(out) as run, h5py.File(out) as file:
            seconds = json.loads(run.provenance["seconds"])
            spent = file["provenance/epoch_seconds"][:].reshape(-1, done)  # by block and epoch
    later = float(np.median(spent[:, 1:], axis=1).sum()) if done > 1 else float(spent.sum())
    return {
        "epochs": done, "recipe_epochs": epochs, "is_whole": done == epochs, "wall_s": wall, "seconds": seconds,
        "first_epochs_s": spent[:, 0].tolist(), "later_epochs_s": later,
        "recipe_seconds": seconds["train"] + (epochs - done) * later, "extrapolated_from_steps_s": sum(ours_s),
        "published_extrapolated_s": sum(theirs_s), "peak_bytes": peak(table),
        "test_accuracy": {score.depth: score.accuracy["test"] for score in scores},
        "floor_s": sum(
            table.n * epochs * step_operations(table.problems, j, 1) / table.rate
            for j in range(1, table.config.network.depth + 1)
        ),
    }  # fmt: skip


@contextmanager
def loaded(dataset: Dataset) -> Iterator[None]:
    """Let a run find these images whatever its configuration names."""
    original = layerwise.training.run.load_configured
    layerwise.training.run.load_configured = lambda *words, **more: dataset  # type: ignore[assignment]
    try:
        yield
    finally:
        layerwise.training.run.load_configured = original


def reset_peak(table: Table) -> None:
    """Begin to measure peak memory anew."""
    if table.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(table: Table) -> dict[str, int] | None:
    """Return the peak of what was allocated and of what was reserved since."""
    if table.device.type != "cuda":
        return None
    return {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}


def memory(table: Table) -> dict[str, Any]:
    """Measure the peak of a training step beyond what lay there: greedy at each depth, end to end, checkpointed."""
    net, cfg = table.network(), table.config
    images, y = (
        table.data["train"].images[: cfg.training.batch_size],
        table.data["train"].label[: cfg.training.batch_size],
    )
    found = {}
    for j in range(1, cfg.network.depth + 1):
        prefix = FrozenPrefix(net, j - 1, cfg.precision)
        found[f"greedy block {j}"] = step_peak(table, cfg, net.blocks[j - 1], net.auxiliaries[j - 1], prefix, images, y)
        freeze(net.blocks[j - 1])
    found["greedy"] = max(found.values())
    for name, kind in (("end to end", nn.Sequential), ("gradient checkpointing", Checkpointed)):
        net = table.network()
        body = kind(*net.blocks)
        found[name] = step_peak(table, cfg, body, net.auxiliaries[-1], FrozenPrefix(net, 0, cfg.precision), images, y)
    return {f"{name} MB": nbytes / 1e6 for name, nbytes in found.items()}


class Checkpointed(nn.Sequential):
    """Blocks whose insides are computed again in the backward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the input of each block and nothing within."""
        for block in self:
            x = checkpoint(block, x, use_reentrant=False)
        return x


def step_peak(
    table: Table, config: RunConfig, block: nn.Module, classifier: nn.Module, prefix: FrozenPrefix, images: Any, y: Any
) -> int:
    """Return the most bytes that the third step of a training holds beyond its parameters."""
    problem = AuxiliaryProblem(block, classifier, config.training, config.precision)
    problem.start_epoch(0, 10)
    for _ in range(2):
        problem.step(prefix(images), y)
    problem.optimizer.zero_grad(set_to_none=True)
    if table.device.type == "cpu":
        return cpu_peak(lambda: problem.step(prefix(images), y))
    reset_peak(table)
    before = torch.cuda.memory_allocated()
    problem.step(prefix(images), y)
    return torch.cuda.max_memory_allocated() - before


def cpu_peak(work: Callable[[], object]) -> int:
    """Return the most bytes that the CPU allocator had handed out at once while `work` ran."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    now = most = 0
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def no_wait(table: Table) -> dict[str, Any]:
    """Let torch raise an error where the host waits for the device inside a step, captured or not."""
    if table.device.type != "cuda":
        return {"skipped": "no GPU"}
    net, original = table.network(), capture.CapturedStep.__call__
    found = {}

    def watched(self: capture.CapturedStep, *tensors: torch.Tensor) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            original(self, *tensors)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for name, fields in (("sgd", {}), ("adamw, cosine", {"training.optimizer": "adamw", "training.schedule": "cosine"}),
                         ("averaged", {"training.ema_decay": 0.99})):  # fmt: skip
        problem, source = stage(table, net, 1, Recomputed, set_fields(table.config, fields))
        capture.CapturedStep.__call__ = watched  # type: ignore[method-assign]
        try:
            step = timed_steps(table, problem, source)
            found[name] = f"no wait in {table.steps} steps ({1e3 * step[0]:.2f} ms each, captured in {step[1]:.2f} s)"
        except Exception as error:
            found[name] = f"FAILED: {error}"
        finally:
            capture.CapturedStep.__call__ = original  # type: ignore[method-assign]
    return found


def same_as_uncaptured(table: Table) -> dict[str, Any]:
    """Train block 2 captured and kernel by kernel from the same weights; compare, and look at the frozen block."""
    start, results = table.network(), []
    freeze(start.blocks[0])
    for captured in (True, False):
        net = copy.deepcopy(start)
        frozen = {name: t.cpu().numpy().tobytes() for name, t in net.blocks[0].state_dict().items()}
        problem, source = stage(table, net, 2, Recomputed, table.config)
        timed_steps(table, problem, source, captured=captured)
        after = {name: t.cpu().numpy().tobytes() for name, t in net.blocks[0].state_dict().items()}
        results.append((net.blocks[1].conv.weight.detach().float(), problem.score("here").loss, frozen == after))
    difference = (results[0][0] - results[1][0]).norm() / results[1][0].norm()
    return {
        "frozen_block_keeps_every_bit": results[0][2] and results[1][2],
        "losses": [results[0][1], results[1][1]], "relative_difference_of_weights": float(difference),
    }  # fmt: skip


def grey_images(table: Table) -> dict[str, Any]:
    """Train on digits, one channel, in the modes that share the loop: accuracy as on a CPU."""
    found = {}
    for mode in ("greedy", "parallel", "end-to-end"):
        fields = {"mode": mode, "precision": table.config.precision, "training.epochs": 1 if table.toy else 8}
        with tempfile.TemporaryDirectory() as folder:
            scores = train_run(
                set_fields(recipe("digits"), fields), Place(out=Path(folder) / "d.h5", device=table.device)
            )
        found[mode] = {score.depth: round(score.accuracy["test"], 4) for score in scores}
    return found


def kernels(table: Table) -> dict[str, Any]:
    """Profile the uncaptured step of block 2: where the device's time goes."""
    net = table.network()
    freeze(net.blocks[0])
    problem, source = stage(table, net, 2, Recomputed, table.config)
    problem.start_epoch(0, 100)
    batches = list(source.batches(0))[:5]
    for batch in batches[:3]:
        problem.step(*source.fetch(*batch))
    on_gpu = table.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CPU, kind.CUDA] if on_gpu else [kind.CPU]) as profile:
        for batch in batches[3:]:
            problem.step(*source.fetch(*batch))
        table.wait()
    events = [e for e in profile.key_averages() if not on_gpu or e.device_type == torch.autograd.DeviceType.CUDA]
    time_of = (lambda e: e.self_device_time_total) if on_gpu else (lambda e: e.self_cpu_time_total)
    top = sorted(events, key=time_of, reverse=True)[:20]
    steps = len(batches[3:])
    return {
        f"{i:02d} {e.key[:70]}": f"{time_of(e) / steps:.0f} us, {e.count / steps:.0f} calls" for i, e in enumerate(top)
    }


def compiled(table: Table) -> dict[str, Any]:
    """Time the step of block 2 with its block and classifier under torch.compile, and the compilation."""
    if table.device.type != "cuda" or table.left < 60:
        return {"skipped": "no GPU, or no time left"}
    net = table.network()
    freeze(net.blocks[0])
    problem, source = stage(table, net, 2, Recomputed, table.config)
    start = time.perf_counter()
    problem.block, problem.classifier = torch.compile(problem.block), torch.compile(problem.classifier)
    problem.start_epoch(0, 100)
    for batch in list(source.batches(0))[:2]:
        problem.step(*source.fetch(*batch))
    table.wait()
    compiling = time.perf_counter() - start
    seconds, _ = timed_steps(table, problem, source)
    return {"ms": 1e3 * seconds, "compile_s": compiling}


def folded_convolution(table: Table) -> dict[str, Any]:
    """Time a folded block of the prefix: convolution and relu apart, and as cuDNN's one kernel."""
    if table.device.type != "cuda":
        return {"skipped": "no GPU"}
    width, batch = table.config.network.width, table.config.training.batch_size
    with torch.no_grad(), products("bf16"):
        conv = nn.Conv2d(width, width, 3, padding=1).to(table.device, torch.bfloat16, memory_format=torch.channels_last)
        x = torch.randn(batch, width, 32, 32, device=table.device).to(torch.bfloat16, memory_format=torch.channels_last)
        one = (1, 1)

        def fused() -> torch.Tensor:
            return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, one, one, one, 1)

        apart = 1e3 * table.seconds(lambda: F.relu_(conv(x)), 50)
        bare = 1e3 * table.seconds(lambda: F.conv2d(x, conv.weight, padding=1), 50)
        together = 1e3 * table.seconds(fused, 50)
        error = float((fused().float() - F.relu(conv(x)).float()).abs().max())
        is_last = fused().is_contiguous(memory_format=torch.channels_last)
    return {
        "apart_ms": apart, "fused_ms": together, "bare_convolution_ms": bare, "largest_difference": error,
        "channels_last": is_last,
    }  # fmt: skip


def markdown(table: Table) -> Iterator[str]:
    """Yield the table as it stands in docs/performance.md."""
    about, rate = table.found.get("environment", {}), table.found.get("rates", {})
    yield f"{about.get('device')}, torch {about.get('torch')}, {about.get('precision')}, {about.get('images')}"
    yield f"matrix multiplication: {rate.get('bf16_tflops', 0):.0f} TFLOP/s bf16, {rate.get('fp32_tflops', 0):.1f} fp32"
    yield ""
    yield "| depth | ours, ms | published, ms | ratio | floor, ms | ours / floor | uncaptured, ms | kept prefix, ms |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    theirs = {row["depth"]: row["ms"] for row in table.found.get("published", {}).get("rows", [])}
    for row in table.found.get("ours", {}).get("rows", []):
        other = theirs.get(row["depth"], float("nan"))
        yield (
            f"| {row['depth']} | {row['ms']:.2f} | {other:.2f} | {other / row['ms']:.1f} | {row['floor_ms']:.2f} | "
            f"{row['ms'] / row['floor_ms']:.2f} | {row['eager_ms']:.2f} | {row.get('kept_ms', float('nan')):.2f} |"
        )
    for name, found in table.found.items():
        if name not in {"ours", "published"}:
            yield f"\n{name}: {json.dumps(found, default=str)}"


SECTIONS: dict[str, Section] = {
    "environment": environment,
    "rates": rates,
    "same as uncaptured": same_as_uncaptured,
    "no wait": no_wait,
    "ours": ours,
    "published": published_loop,
    "memory": memory,
    "kernels": kernels,
    "folded convolution": folded_convolution,
    "grey images": grey_images,
    "whole run": whole_run,
    "compiled": compiled,
}


def main(words: list[str] | None = None) -> Table:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="toy size, for a test on any machine")
    parser.add_argument("--data-dir", type=Path, help="CIFAR-10 as published, or a folder with train/CLASS, test/CLASS")
    parser.add_argument("--out", type=Path, default=Path("gpu-table"), help="where OUT.json and OUT.md are written")
    parser.add_argument("--budget", type=float, default=440, help="seconds that all of it may take")
    parser.add_argument("--only", default="", help="comma-separated sections")
    given = parser.parse_args(words)
    table = Table(given.toy, given.data_dir, given.out, given.budget)
    table.load()
    only = [name for name in given.only.split(",") if name]
    for name, section in SECTIONS.items():
        if not only or name in only or name in {"environment", "rates"}:
            table.run(name, section)
    print(f"all of it took {time.perf_counter() - table.start:.0f} s", flush=True)
    return table


if __name__ == "__main__":
    main()
