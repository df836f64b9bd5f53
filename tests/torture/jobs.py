"""The commands that are interrupted: small, every mode and kind of probe, each with the files it begins with."""

from __future__ import annotations

from dataclasses import dataclass

TINY = "--depth 2 --width 4 --aux-width 4 --epochs 1 --subset 300 --precision fp32 --device cpu"
CNN = "--probe-width 4 --probe-seeds 1 --epochs 1 --device cpu"
# Enough epochs to train, since a study draws nothing of networks that did not. One setting is left to the grid.
STUDY = (
    "--budget smoke --k 2 --width 4 --seeds 1 --with none --probe linear --subset 200 --depth 2 --aux-width 4 "
    "--epochs 3 --set precision=fp32 --set greedy:training.learning_rate=0.1 --device cpu --jobs 1 -o study"
)
RUN, NETWORK, ARRAYS = "run.h5", "net.py", "features.npz"
TABLES = ("run.probes.csv", "run.candidates.csv", "run.predictions.h5")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command to be interrupted.

    line: its words. inputs: files of the material that it begins with. extra: a package it needs, if any.
    """

    name: str
    command: str
    line: str
    inputs: tuple[str, ...] = ()
    extra: str = ""

    @property
    def words(self) -> list[str]:
        """The words of its command line."""
        return self.line.split()


def _train(name: str, flags: str, *inputs: str) -> Job:
    return Job(name=f"train {name}", command="layerwise-train", line=f"digits {flags} -o out.h5", inputs=inputs)


def _probe(name: str, flags: str) -> Job:
    line = f"{RUN} --probe {name} {flags}"
    return Job(name=f"probe {name}", command="probe-depth", line=line, inputs=(RUN,))


def _extract(name: str, flags: str, source: str) -> Job:
    line = f"{flags} --device cpu -o out.h5"
    return Job(name=f"extract {name}", command="layerwise-extract", line=line, inputs=(source,))


def _reader(command: str, output: str, *inputs: str, extra: str = "") -> Job:
    name = f"{command} {output}" if extra else command
    return Job(name=name, command=command, line=f"{RUN} -o {output}", inputs=(RUN, *inputs), extra=extra)


JOBS = (
    _train("greedy", TINY),
    _train("parallel", f"{TINY} --mode parallel"),
    _train("end-to-end", f"{TINY} --mode end-to-end"),
    _train("untrained", f"{TINY} --mode untrained"),
    _train("pruned", f"{TINY} --prune-to 2"),
    _train("long dump", f"{TINY} --subset 0 --width 16 --store maps"),
    Job(
        name="train replaced",
        command="layerwise-train",
        line=f"--from {RUN} --replace-auxiliary 6 --device cpu -o out.h5",
        inputs=(RUN,),
    ),
    _extract("network", f"{NETWORK}:make --trained-on nothing --subset 300 --store maps", NETWORK),
    _extract("arrays", f"--from {ARRAYS} --trained-on other-data", ARRAYS),
    _probe("linear", "--device cpu"),
    _probe("cnn-1", CNN),
    _probe("knn", "--device cpu"),
    _probe("ncm", "--device cpu"),
    _reader("layerwise-export", "model.pt2", extra="torch"),
    _reader("layerwise-export", "model.onnx", extra="onnxruntime"),
    _reader("separability-figure", "figure.pdf", *TABLES),
    _reader("training-figure", "training.pdf"),
    _reader("separability-table", "table.md", *TABLES),
    Job(name="study", command="separability-study", line=STUDY),
)
