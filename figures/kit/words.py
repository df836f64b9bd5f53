"""Sentences that captions and tables share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd

from probes.names import QUICK_EPOCHS

IMAGES_SHARE = "The images' share: the normal interval of half the variance that these images give an accuracy."
# What a network that did not train is, in the words of `analysis.failures`.
_TEST = "its own last classifier is not better than chance on its train fold, exact binomial test at 0.001"


def who_trained(points: pd.DataFrame) -> list[str]:
    """Name the networks that did not train: those that are left out of points, and those that are in them."""
    if "left_out" not in points or points.empty:
        return []
    return [
        *left_out(_files(points["left_out"])),
        *_did_not_train(
            "shown, though it did not train", "shown, though they did not train", _files(points["did_not_train"])
        ),
    ]


def left_out(named: Sequence[str], is_finite: bool = True) -> list[str]:
    """Name the networks that are left out, each with how that shows. is_finite: whether the loss of each was."""
    return _did_not_train("left out, for it did not train", "left out, for they did not train", named, is_finite)


def _did_not_train(one: str, several: str, named: Sequence[str], is_finite: bool = True) -> list[str]:
    if not named:
        return []
    test = _TEST if is_finite else f"{_TEST}, or its loss was not finite"
    if len(named) == 1:
        return [f"{one[0].upper()}{one[1:]} ({test}): {named[0]}."]
    test = test.replace("its own", "their own").replace("its ", "their ")
    return [f"{len(named)} networks {several} ({test}): {', '.join(named)}."]


def _files(column: pd.Series) -> list[str]:
    return sorted({word for words in column for word in words.split("; ") if word})


def certified(points: pd.DataFrame) -> list[str]:
    """Say how far the fits are from their optimum at most, by the largest certificate, rounded up."""
    known = points["certificate"].dropna() if "certificate" in points else points.iloc[:0]
    if not len(known):
        return []
    return [f"Each linear fit is within {bound(float(known.max()))} nats of its optimum, proved."]


def trained_for(points: pd.DataFrame, who: str) -> list[str]:
    """Say for how many epochs CNN probes were trained, and that few are far from enough. who: "They", "CNN probes"."""
    epochs = sorted(set(points["epochs"].dropna())) if "epochs" in points else []
    if not epochs:
        return []
    sentence = f"{who} were trained for {' or '.join(map(str, epochs))} epochs"
    return [f"{sentence} only (quick), far from convergence." if epochs[0] <= QUICK_EPOCHS else f"{sentence}."]


def bound(certificate: float) -> str:
    """Return a bound with one digit, "3e-5" for 2.4e-5: a bound that is rounded down is none."""
    if certificate <= 0:
        return "0"
    exponent = math.floor(math.log10(certificate))
    digit = math.ceil(certificate / 10.0**exponent - 1e-9)
    return f"{digit}e{exponent}" if digit < 10 else f"1e{exponent + 1}"


def percent(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Return a share of 1 as "94.7%", with the ends of its interval, where it has one, "94.7% (93.7 to 95.7)"."""
    return f"{100 * value:.1f}%{_between(low, high, '.1f')}"


def points(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Return a difference of shares as "+2.3 points (+1.0 to +3.7)"."""
    return f"{100 * value:+.1f} points{_between(low, high, '+.1f')}"


def _between(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f" ({100 * low:{form}} to {100 * high:{form}})"


def first_sentence(caption: str) -> tuple[str, str]:
    """Return the first sentence of a caption and the rest; the stop of "et al." ends none."""
    first, *rest = re.split(r"(?<!\bal)\. ", caption, maxsplit=1)
    return (f"{first}.", rest[0]) if rest else (first, "")
