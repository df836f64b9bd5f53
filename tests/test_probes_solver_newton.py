"""The Newton steps of the solver: what each says of itself."""

from __future__ import annotations

import logging
import re

import pytest
from linear_problems import PATH, blobs

from probes.solver.path import fit_path

LINE = re.compile(
    r"Newton step (\d+): (\d+) problems open \((\d+) in float64\), objective (\S+) to (\S+), \|gradient\| up to (\S+), "
    r"gap up to (\S+), (\d+) CG iterations, step length (\S+) to (\S+)"
)


@pytest.mark.parametrize("loss", ["multinomial", "ovr", "squared_hinge"])
def test_each_newton_step_says_one_line(loss: str, caplog: pytest.LogCaptureFixture) -> None:
    x, y = blobs()
    with caplog.at_level(logging.DEBUG, "layerwise.probes"):
        fits = fit_path(x, y, PATH, n_classes=3, loss=loss)
    found = [LINE.fullmatch(message) for message in caplog.messages]
    assert all(found)
    lines = [tuple(map(float, match.groups())) for match in found if match]
    assert [line[0] for line in lines] == list(range(1, max(fit.iterations for fit in fits) + 1))
    opened = [line[1] for line in lines]
    assert opened[0] == len(PATH) * (1 if loss == "multinomial" else 3) and opened == sorted(opened, reverse=True)
    assert all(line[3] <= line[4] and line[7] >= 1 and 0 < line[8] <= line[9] for line in lines)
    gaps = [line[6] for line in lines]
    assert gaps[-1] < gaps[0]


def test_nothing_is_computed_for_a_line_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    x, y = blobs()
    with caplog.at_level(logging.INFO, "layerwise.probes"):
        fit_path(x, y, PATH, n_classes=3)
    assert caplog.messages == []
