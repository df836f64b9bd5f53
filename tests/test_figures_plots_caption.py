"""The caption says what was measured, averaged and chosen."""

from __future__ import annotations

import itertools
import math
from typing import Any

from analysis.failures import with_asked
from analysis.separability import curves
from figures.kit.words import bound
from figures.plots.caption import caption
from tests.probe_rows import row, run_rows, table


def test_one_network() -> None:
    assert caption(curves(table(run_rows([0.3, 0.5])))) == (
        "Accuracy of probes against depth j on digits, test split (360 images). "
        "k = 1: one network (M = 64); bars: test images (Wilson 95%). "
        "A bar shorter than its marker is hidden by it. "
        "linear: multinomial logistic regression on 2x2-pooled activations; hollow: the 2x2-pooled input, "
        "which has few features. Each linear fit is within 1e-6 nats of its optimum, proved. "
        "Dotted line: chance (10%), the accuracy of always predicting the most frequent class of the "
        "training data. Probes refitted on train + validation; hyper-parameters chosen on the validation "
        "fold; protocol version 1."
    )


def test_seeds_and_widths_and_lines_alike() -> None:
    rows = [
        row
        for k in (1, 2)
        for width in (64, 128)
        for seed in (0, 1, 2)
        for row in run_rows([0.3, 0.5], k=k, width=width, seed=seed)
    ]
    rows += run_rows([0.3, 0.4], mode="untrained")
    text = caption(curves(table(rows)))
    assert (
        "k = 1, greedy; k = 2, greedy: mean of 6 networks (M = 64, 128; 3 seeds), "
        "each M weighing the same; bars: seeds (t "
        "95%, at least the images' share). k = 1, untrained: one network (M = 64); bars: test images (Wilson 95%). "
    ) in text


def test_a_bar_that_is_cut_is_said() -> None:
    rows = [
        row
        for k, accuracies in ((1, (0.8, 0.2)), (2, (0.8, 0.81)), (3, (0.82, 0.81)))
        for seed, accuracy in enumerate(accuracies)
        for row in run_rows([0.3, accuracy], k=k, seed=seed)
    ]
    words = "An arrowhead ends a bar, and the axis a band, that goes on beyond the axis."
    assert words in caption(curves(table(rows)))
    assert words not in caption(curves(table(rows).query("k > 1")))


def test_no_interval_is_said() -> None:
    rows = run_rows([0.3], width=64) + run_rows([0.3], width=128)
    assert "mean of 2 networks (M = 64, 128; 1 seed), each M weighing the same; no interval" in caption(
        curves(table(rows))
    )
    rows = run_rows([0.3], split="train", ci_low=math.nan, ci_high=math.nan)
    text = caption(curves(table(rows), split="train"))
    assert "k = 1: one network (M = 64); no interval" in text and "A bar" not in text


def test_probes() -> None:
    rows = run_rows([0.3], (("linear-ovr", 0), ("cnn-1", 64)))
    text = caption(curves(table(rows)))
    assert "linear-ovr: one-versus-rest logistic regression on 2x2-pooled activations;" in text
    assert (
        "CNN-p: a CNN with p hidden layers, trained on the whole maps; the width in a panel's title is the probe's."
        in text
    )
    grey = (
        "Grey at depth 0: the input, the same for all lines to a tenth of a point; its bar: test images (Wilson 95%)."
    )
    assert grey in text
    assert "linear: multinomial" not in text
    rows += run_rows([0.4], (("linear-ovr", 0), ("cnn-1", 64)), k=2)
    assert "Grey at depth 0" not in caption(curves(table(rows)))


def test_what_was_fitted_and_chosen() -> None:
    rows = run_rows([0.3], seed=0) + run_rows([0.3], seed=1, refit=0, selection="seen")
    assert caption(curves(table(rows))).endswith(
        "Probes refitted on train + validation, or fitted on all images where a run has no validation fold; "
        "hyper-parameters fixed where a run has no validation fold; hyper-parameters chosen on the validation fold; "
        "protocol version 1."
    )
    rows = run_rows([0.3], refit=0, selection="seen")
    assert caption(curves(table(rows))).endswith(
        "Probes fitted on all of the train split; hyper-parameters fixed, for want of a validation fold; protocol "
        "version 1."
    )
    rows = run_rows([0.3], refit=0, selection="fixed")
    assert caption(curves(table(rows), refit=False)).endswith(
        "Probes fitted on the train fold only; hyper-parameters fixed; protocol version 1."
    )


def test_probes_fitted_in_different_ways_are_told_apart() -> None:
    own = (("auxiliary", 0), ("ensemble", 0), ("ensemble-softmax", 0), ("ensemble-uniform", 0))
    probes = ["linear", "cnn-1", "auxiliary", "ensemble", "ensemble-softmax", "ensemble-uniform"]
    rows = run_rows([0.3], (("linear", 0), ("cnn-1", 64))) + run_rows([0.4], own, refit=0, selection="fixed")
    text = caption(curves(table(rows), probes))
    assert (
        "auxiliary: the classifier trained with the block, k - 1 hidden convolutions. "
        "ensemble: all auxiliary classifiers up to the depth, weighted 2^j on logits. "
        "ensemble-softmax: all auxiliary classifiers up to the depth, weighted 2^j on probabilities. "
        "ensemble-uniform: all auxiliary classifiers up to the depth, weighted equally on probabilities. Dotted"
    ) in text
    assert text.endswith(
        "linear, CNN-1: refitted on train + validation; hyper-parameters chosen on the validation fold; protocol "
        "version 1. auxiliary, ensemble, ensemble-softmax, ensemble-uniform: fitted on the train fold in the training "
        "of the network itself, with nothing chosen; protocol version 1."
    )


def test_what_a_run_trained_itself_alone() -> None:
    rows = run_rows([0.4], (("auxiliary", 0),), pooling=0, refit=0, selection="fixed")
    text = caption(curves(table(rows), ["auxiliary"]))
    assert text.endswith(
        "Probes fitted on the train fold in the training of the network itself, with nothing chosen; protocol "
        "version 1."
    )
    assert "ensemble" not in text and "refit" not in text and "hyper-parameters" not in text


def test_an_extracted_network_has_no_width() -> None:
    rows = run_rows([0.3], mode="extracted", k=None, width=None, aux_width=None, seed=None)
    assert "extracted: one network; bars: test images (Wilson 95%)." in caption(curves(table(rows)))


def test_a_network_built_elsewhere_is_called_by_its_label_as_it_is_typed() -> None:
    rows = run_rows([0.3], mode="net of $5, untrained", k=None, width=None, aux_width=None)
    assert "net of $5, untrained: one network; bars: test images (Wilson 95%)." in caption(curves(table(rows)))


def several(**fields: Any) -> list[dict[str, Any]]:
    """Return the rows of networks of k = 1, 2, M = 64, 128 and seeds 0, 1, of two poolings."""
    rows = []
    for k, width, seed, pooling in itertools.product((1, 2), (64, 128), (0, 1), (1, 2)):
        own = {"run_id": f"{fields}{k}{width}{seed}", "k": k, "width": width, "seed": seed, "pooling": pooling}
        rows += run_rows([0.3, 0.5, 0.6], **own | fields)
    return rows


def test_each_factor_says_what_it_averages() -> None:
    table_of_all = table(several())
    expected = {
        "mode": "greedy: mean of 8 networks (k = 1, 2; M = 64, 128; 2 seeds), each pair of k and M weighing the same; "
        "bars: seeds (t 95%, at least the images' share).",
        "width": "M = 64; M = 128: mean of 4 networks (k = 1, 2; 2 seeds), each k weighing the same; bars: seeds",
        "pool": "1x1; 2x2: mean of 8 networks (k = 1, 2; M = 64, 128; 2 seeds), each pair of k and M weighing",
        "seed": "seed 0; seed 1: mean of 4 networks (k = 1, 2; M = 64, 128), each pair of k and M weighing the same; "
        "bars: test images (Wilson 95% at the mean of 4 networks).",
    }
    for by, words in expected.items():
        assert words in caption(curves(table_of_all, by=by))


def test_one_seed_of_one_network() -> None:
    rows = [one for one in several() if (one["k"], one["width"]) == (2, 64)]
    assert "seed 0; seed 1: one network each (k = 2, M = 64); bars: test images (Wilson 95%)." in caption(
        curves(table(rows), by="seed")
    )


def test_bands_are_told_apart() -> None:
    text = caption(curves(table(several() + several(mode="untrained"))))
    assert (
        "k = 1, greedy; k = 2, greedy: mean of 4 networks (M = 64, 128; 2 seeds), each M weighing the same; bars: "
        "seeds (t 95%, at least the images' share). untrained, no BatchNorm (hatched band); untrained (grey band): "
        "mean of 4 networks (M = 64, "
        "128; 2 seeds), each M weighing the same; band: seeds (t 95%, at least the images' share). A bar shorter"
    ) in text


def test_relative_depth_says_how_deep_the_networks_are() -> None:
    rows = run_rows([0.3, 0.5]) + run_rows([0.3, 0.4], mode="net", k=None, width=None, aux_width=None, blocks=12)
    assert caption(curves(table(rows)), relative=True).startswith(
        "Accuracy of probes against relative depth j/J (J = 4, 12) on digits, test split (360 images)."
    )


def elsewhere(sizes: list[int], **fields: Any) -> list[dict[str, Any]]:
    """Return the rows of a network built elsewhere, of maps of these sides, from depth 1 on."""
    own = {"mode": "net", "k": None, "width": None, "aux_width": None, "run_id": "net"} | fields
    return [row(0.5, depth=depth, map_height=side, map_width=side, **own) for depth, side in enumerate(sizes, start=1)]


def test_of_vectors_without_an_input_nothing_is_called_pooled() -> None:
    text = caption(curves(table(elsewhere([1, 1]))))
    assert "linear: multinomial logistic regression on the activations, which are vectors. Each" in text
    assert "pooled" not in text and "hollow" not in text and "input" not in text


def test_of_maps_and_vectors_both_are_named() -> None:
    text = caption(curves(table(elsewhere([8, 1]))))
    assert "regression on 2x2-pooled activations (a vector as it is). Each" in text
    assert "hollow" not in text


def test_of_maps_one_pixel_high_the_grid_is_what_it_is() -> None:
    rows = [one | {"map_height": 1} for one in elsewhere([8, 8])]
    assert "regression on 1x2-pooled activations. Each" in caption(curves(table(rows)))


def test_an_input_that_is_a_vector_is_a_point_as_any_other() -> None:
    rows = [one | {"depth": one["depth"] - 1} for one in elsewhere([1, 1])]
    assert "hollow" not in caption(curves(table(rows)))


def test_the_largest_certificate_is_rounded_up() -> None:
    rows = run_rows([0.3, 0.5], certificate=1e-6) + run_rows([0.3, 0.5], k=2, certificate=2.4e-5)
    assert "Each linear fit is within 3e-5 nats of its optimum, proved." in caption(curves(table(rows)))
    assert [bound(value) for value in (0.0, 3e-5, 9.2e-7, 1.0e-4, 1.01e-4)] == ["0", "3e-5", "1e-6", "1e-4", "2e-4"]


def test_a_probe_that_is_not_convex_has_no_certificate() -> None:
    rows = run_rows([0.3, 0.5], (("cnn-1", 64),), certificate=math.nan)
    assert "optimum" not in caption(curves(table(rows)))


def test_what_the_floor_of_intervals_over_seeds_is_stands_beside_them() -> None:
    rows = run_rows([0.3, 0.5], seed=0) + run_rows([0.3, 0.5], seed=1)
    assert "The images' share: " in caption(curves(table(rows)))
    assert "The images' share: " not in caption(curves(table(run_rows([0.3, 0.5]))))


def test_networks_that_did_not_train_are_counted() -> None:
    rows = table(run_rows([0.3, 0.5], seed=0) + run_rows([0.3, 0.5], seed=1) + run_rows([0.3, 0.5], k=2))
    text = caption(curves(with_asked(rows, [("greedy", 1, 64)] * 3 + [("greedy", 2, 64)] * 2)))
    assert "k = 1: mean of 2 of 3 networks (M = 64; 2 seeds);" in text
    assert "k = 2: one of 2 networks (M = 64);" in text
