"""The path of penalties: where it ends, what it chooses, and when a better penalty may lie beyond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reference import slow_choice

from probes.linear.penalties import LARGER, LEAST_FALL, PENALTIES, Candidate, choose
from probes.protocol import Predictions
from probes.solver.fit import LinearFit


class Path:
    """A probe whose log-losses are made up: one for each penalty from the largest, the last for all that follow."""

    def __init__(self, losses: list[float], *, above: tuple[float, ...] = (9.0,), correct: int = 2, apart: int = 99):
        self.losses, self.above, self.correct, self.apart = losses, above, correct, apart
        self.solved: list[float] = []
        self.starts: list[float | None] = []

    def __call__(self, lam: float, start: LinearFit | None) -> Candidate:
        self.solved.append(lam)
        self.starts.append(None if start is None else start.lam)
        wanted, position = (self.above, LARGER.index(lam)) if lam in LARGER else (self.losses, PENALTIES.index(lam))
        return candidate(lam, wanted[min(position, len(wanted) - 1)], self.correct, position >= self.apart)


def candidate(lam: float, loss: float, correct: int = 2, separates: bool = False) -> Candidate:
    fit = LinearFit(np.zeros((2, 1)), np.zeros(2), lam, "multinomial", loss, 0.0, 1, True)
    predicted = np.array([0] * correct + [1] * (4 - correct))
    log_probability = np.full(4, -loss)
    return Candidate(fit, Predictions(np.zeros(4, int), predicted, log_probability, log_probability), separates)


@pytest.mark.parametrize(
    ("losses", "n_solved", "chosen"),
    [
        ([3, 2, 1, 2, 3], 5, 2),  # passed its lowest point
        ([3, 2, 1, 1.5, 0.5, 2, 3, 0], 7, 4),  # one rise is none
        ([3, 2, 1.5, 1.4995, 1.499, 0], 5, 4),  # two falls together of one thousandth or less
        ([3, 2, 1.5, 1.4994, 1.4988, 1.5, 1.5], 7, 4),  # the second makes it more
    ],
)
def test_the_path_ends_where_the_log_loss_has_not_fallen_twice(losses: list[float], n_solved: int, chosen: int) -> None:
    path = Path(losses)
    best, is_cut = choose(path)
    down = [lam for lam in path.solved if lam in PENALTIES]
    assert down == list(PENALTIES[:n_solved])
    assert (best.fit.lam, is_cut) == (PENALTIES[chosen], False)
    table = [(lam, losses[min(i, len(losses) - 1)], 0.5, False) for i, lam in enumerate(PENALTIES)]
    assert slow_choice(table)[0] == best.fit.lam


def test_each_fit_begins_from_the_one_before() -> None:
    path = Path([3, 2, 1, 2, 3])
    choose(path)
    assert path.starts == [None, *path.solved[:-1]]


def test_a_fit_begins_where_the_path_would_go_on() -> None:
    """Weights 1, 3, 7, ... change by steps that double; an absent class keeps its intercept."""
    starts: list[LinearFit | None] = []

    def solve(lam: float, start: LinearFit | None) -> Candidate:
        starts.append(start)
        place = len(starts)
        fit = replace(candidate(lam, 0).fit, coef=np.full((2, 1), 2.0**place - 1), intercept=np.array([place, -np.inf]))
        return replace(candidate(lam, -place if place < 5 else place), fit=fit)

    choose(solve)
    assert starts[0] is None
    assert [start.coef[0, 0] for start in starts[1:5] if start is not None] == [1, 5, 15, 31]
    assert [start.intercept.tolist() for start in starts[1:4] if start] == [[1, -np.inf], [3, -np.inf], [5, -np.inf]]


@pytest.mark.parametrize("losses", [[3, 2, 1, 1.5, 0.5, 2], [3, 2, 1, 0.9999, 0]])
def test_on_separable_data_one_rise_ends_the_path(losses: list[float]) -> None:
    path = Path(losses, apart=2)
    best, is_cut = choose(path)
    assert len(path.solved) == 4 and not is_cut
    table = [(lam, losses[min(i, len(losses) - 1)], 0.5, i >= 2) for i, lam in enumerate(PENALTIES)]
    assert slow_choice(table)[0] == best.fit.lam


def test_on_separable_data_it_goes_on_while_the_log_loss_falls() -> None:
    path = Path([0.5, 0.4, 0.3, 0.2, 0.1, 0.0999], apart=0)
    best, is_cut = choose(path)
    assert (len(path.solved), is_cut) == (6, False)
    assert best.fit.lam == PENALTIES[5]


def test_equal_log_losses_go_to_the_accuracy_and_then_to_the_larger_penalty() -> None:
    found = {1e-1: (1, 3), 1e-2: (1, 3), 1e-3: (1, 2), 1.0: (2, 4)}
    ranked = sorted((candidate(lam, *words) for lam, words in found.items()), key=lambda one: one.rank)
    assert [one.fit.lam for one in ranked] == [1e-1, 1e-2, 1e-3, 1.0]


def test_classes_that_no_fit_knows_choose_nothing() -> None:
    found = candidate(1e-1, 2.0)
    found.validation.true_log_probability[1] = -np.inf
    assert found.log_loss == 2.0
    assert candidate(1e-1, np.inf).log_loss == np.inf


def test_where_the_largest_penalty_is_best_larger_ones_are_tried() -> None:
    path = Path([1, 2, 3], above=(0.8, 0.7, 0.6999, 0.5))
    best, is_cut = choose(path)
    assert path.solved == [*PENALTIES[:3], *LARGER[:3]]
    assert path.starts == [None, *PENALTIES[:2], PENALTIES[0], *LARGER[:2]]
    assert (best.fit.lam, is_cut) == (LARGER[2], False)


@pytest.mark.parametrize("below", [True, False])
def test_a_path_cut_while_the_log_loss_falls_is_said(below: bool) -> None:
    falling = [float(x) for x in range(20, 4, -1)]
    best, is_cut = choose(Path(falling) if below else Path([30.0], above=tuple(falling)))
    assert is_cut
    assert best.fit.lam == (PENALTIES[-1] if below else LARGER[-1])


def test_the_grid_has_two_penalties_a_decade_and_each_fall_counts_from_a_thousandth() -> None:
    np.testing.assert_allclose(np.diff(np.log10(PENALTIES)), -0.5)
    np.testing.assert_allclose(np.diff(np.log10([PENALTIES[0], *LARGER])), 0.5)
    assert (PENALTIES[0], PENALTIES[-1], LEAST_FALL) == (pytest.approx(10**-0.5), pytest.approx(1e-8), 1e-3)


class Rough:
    """A path with many classes: fits are rough at first, and their log-losses off by up to 0.01 nats."""

    def __init__(self, losses: list[float], off: list[float]):
        self.exact, self.off, self.asked = Path(losses), off, list[tuple[float, bool]]()

    def solve(self, lam: float, start: LinearFit | None) -> Candidate:
        self.asked.append((lam, False))
        return self.exact(lam, start)

    def roughly(self, lam: float, start: LinearFit | None) -> Candidate:
        self.asked.append((lam, True))
        loss = self.exact(lam, start).log_loss + self.off[len(self.asked) % len(self.off)]
        return replace(candidate(lam, loss), is_rough=True)


@pytest.mark.parametrize("seed", range(30))
def test_rough_fits_choose_as_certified_ones_do_and_the_chosen_is_certified(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn = rng.integers(1, 12)
    steps = np.where(np.arange(16) < turn, -1.0, 1.0) * rng.choice([0.0005, 0.002, 0.01, 0.1], 16)
    losses = (3 + np.cumsum(steps)).tolist()
    rough = Rough(losses, rng.uniform(-0.0095, 0.0095, 7).tolist())
    best, is_cut = choose(rough.solve, rough.roughly)
    expected, was_cut = choose(Path(losses))
    assert not best.is_rough
    assert (best.fit.lam, best.log_loss, is_cut) == (expected.fit.lam, expected.log_loss, was_cut)


def test_only_what_may_be_chosen_is_solved_to_the_certificate() -> None:
    rough = Rough([3, 2, 1, 0.5, 0.51, 0.7, 9], [0.0])
    best, _ = choose(rough.solve, rough.roughly)
    assert best.fit.lam == PENALTIES[3]
    assert [lam for lam, is_rough in rough.asked if not is_rough] == [PENALTIES[3], PENALTIES[4]]
    assert [lam for lam, is_rough in rough.asked if is_rough] == list(PENALTIES[:6])


def test_after_a_rough_fit_steps_are_taken_as_equal() -> None:
    starts: list[LinearFit | None] = []

    def solve(lam: float, start: LinearFit | None) -> Candidate:
        starts.append(start)
        place = len(starts)
        fit = replace(candidate(lam, 0).fit, coef=np.full((2, 1), 2.0**place - 1))
        return replace(candidate(lam, -place if place < 5 else place), fit=fit, is_rough=True)

    choose(lambda lam, start: replace(candidate(lam, -4), fit=start or candidate(lam, 0).fit), solve)
    assert [start.coef[0, 0] for start in starts[1:5] if start is not None] == [1, 5, 11, 23]
