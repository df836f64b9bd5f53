"""The metrics of a split: the numbers that its predictions are reduced to, by their names in the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probes.protocol import Predictions

CALIBRATION_BINS = 15
CLASS_ACCURACY = "accuracy/"
HALF = "accuracy_half"
TOP5 = "accuracy_top5"
# A thousand classes would make 54,000 rows of each probe of eight depths, in a table that is written after each depth;
# run.predictions.h5 has every test image, of any number of classes.
MOST_CLASSES = 100


def metrics(scored: Predictions, classes: Sequence[str]) -> dict[str, float]:
    """Return {name: number}: accuracy, log_loss_bits, calibration_error, accuracy/CLASS for each class present.

    accuracy_top5 stands where there are at least ten classes, accuracy/CLASS where there are at most a hundred. Of a
    CNN probe also accuracy_half, the accuracy after half of its epochs.
    """
    found = {"accuracy": scored.accuracy}
    if scored.in_top5 is not None:
        found[TOP5] = float(scored.in_top5.mean())
    if not np.isnan(scored.true_log_probability).any():  # a classifier without probabilities has none of these
        found |= {"log_loss_bits": scored.log_loss_bits, "calibration_error": calibration_error(scored)}
    if scored.predicted_half is not None:
        found[HALF] = float((scored.predicted_half == scored.label).mean())
    for label in np.unique(scored.label) if len(classes) <= MOST_CLASSES else ():
        own = scored.label == label
        found[f"{CLASS_ACCURACY}{classes[label]}"] = float((scored.predicted[own] == label).mean())
    return found


def calibration_error(scored: Predictions) -> float:
    """Return the expected calibration error in [0, 1]: the mean distance between confidence and accuracy.

    Images are sorted into 15 bins of equal width by the probability of their predicted class; each bin's distance
    counts by its number of images. Source: Guo et al. 2017, equation 3.
    """
    confidence = np.exp(scored.top_log_probability)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    surplus = (scored.predicted == scored.label) - confidence
    return float(np.abs(np.bincount(bins, surplus)).sum() / len(bins))
