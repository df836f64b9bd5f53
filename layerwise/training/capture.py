"""Training steps as CUDA graphs: one launch by the host where there were hundreds.

A step of these networks computes for about a millisecond, and launching its kernels one by one takes longer. A graph
repeats the same kernels on the same memory, so what is captured reads its inputs from tensors of its own and changes
everything else in place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

log = logging.getLogger("layerwise.capture")

# Steps taken kernel by kernel before the capture: cuDNN times its algorithms, optimizers allocate their state and the
# allocator's pool settles, none of which a graph may do. Three is what PyTorch's notes on CUDA graphs warm up with.
UNCAPTURED = 3
Function = Callable[..., None]


class CapturedStep:
    """A function of tensors that works in place; on a GPU, after UNCAPTURED calls, it is a graph.

    Batches of another shape than the first (the last of an epoch) are never captured. Where the capture fails, a
    warning says so and every batch goes kernel by kernel. Every call does the work exactly once, captured or not.

    seconds: what the capture took; 0 where nothing was captured.
    """

    def __init__(self, function: Function, device: torch.device, recorder: Recorder | None = None):
        self._function = function
        self._recorder = recorder or (Recorder(device) if device.type == "cuda" else None)
        self._shapes: list[torch.Size] = []
        self._calls = 0
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None
        self.seconds = 0.0

    @property
    def is_captured(self) -> bool:
        """Whether calls replay a graph by now."""
        return self._replay is not None

    def __call__(self, *tensors: Tensor) -> None:
        """Do the work on the given tensors."""
        if self._recorder is not None and self._is_due(tensors):
            self._capture(self._recorder, tensors)
        if self._recorder is None:  # on the CPU, or where the capture failed
            self._function(*tensors)
        elif self._replay is None or [tensor.shape for tensor in tensors] != self._shapes:
            self._recorder.run(self._function, tensors)
        else:
            for kept, tensor in zip(self._inputs, tensors, strict=True):
                kept.copy_(tensor, non_blocking=True)
            self._replay()

    def _is_due(self, tensors: Sequence[Tensor]) -> bool:
        """Count a call, and return whether to capture the function before it."""
        shapes = [tensor.shape for tensor in tensors]
        self._shapes = self._shapes or shapes
        self._calls += shapes == self._shapes
        return self._calls > UNCAPTURED and self._replay is None and shapes == self._shapes

    def _capture(self, recorder: Recorder, tensors: Sequence[Tensor]) -> None:
        start = time.perf_counter()
        self._inputs = [tensor.clone() for tensor in tensors]
        try:
            self._replay = recorder.record(self._function, self._inputs)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            log.warning("the training step could not be captured as a CUDA graph (%s): it goes on without one", reason)
            self._recorder, self._inputs = None, []
        self.seconds = time.perf_counter() - start


class Recorder:
    """Runs and captures functions on one side stream: a capture is not allowed on the default one."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)

    def run(self, function: Function, tensors: Sequence[Tensor]) -> None:
        """Run a function on the side stream, in order with the work of the current one."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function(*tensors)
        current.wait_stream(self._stream)

    def record(self, function: Function, inputs: Sequence[Tensor]) -> Callable[[], None]:
        """Capture a function of `inputs` without running it; return a function that runs it on their current values."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            function(*inputs)
        return graph.replay
