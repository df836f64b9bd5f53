"""Sentences that captions and tables share."""

from __future__ import annotations

import math

import pandas as pd

IMAGES_SHARE = "The images' share: the normal interval of half the variance that these images give an accuracy."


def certified(points: pd.DataFrame) -> list[str]:
    """Say how far the fits are from their optimum at most, by the largest certificate, rounded up."""
    known = points["certificate"].dropna() if "certificate" in points else points.iloc[:0]
    if not len(known):
        return []
    return [f"Each linear fit is within {bound(float(known.max()))} nats of its optimum, proved."]


def bound(certificate: float) -> str:
    """Return a bound with one digit, "3e-5" for 2.4e-5: a bound that is rounded down is none."""
    if certificate <= 0:
        return "0"
    exponent = math.floor(math.log10(certificate))
    digit = math.ceil(certificate / 10.0**exponent - 1e-9)
    return f"{digit}e{exponent}" if digit < 10 else f"1e{exponent + 1}"
