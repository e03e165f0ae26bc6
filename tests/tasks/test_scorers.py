"""Scorers: what they make of many batches, and what they leave to others."""

import math

import numpy as np
import pytest

from beit_jax.run.evaluator import CHARTS
from beit_jax.tasks import scores
from beit_jax.tasks.scorers import Means
from tests.tasks.test_scores import CASES, CLASSES, drawn, outputs

NAMES = tuple("abcdefg")


def scored(classes: int = CLASSES, names=NAMES):
    """A classifier's scorer that was given two batches."""
    scorer = scores.ClassScorer(classes, names)
    for seed in (0, 1):
        scorer.add(outputs(*drawn(CASES[0], seed)), np.arange(501))
    return scorer


def test_means_are_ratios_of_sums_in_float64():
    """2^24 + 1 + 1 + ... would stay 2^24 in float32."""
    scorer = Means()
    scorer.add({"loss": (np.float32(2**24), np.float32(1))})
    for _ in range(7):
        scorer.add({"loss": (np.float32(1), np.float32(0)), "top1": (1.0, 2.0)})
    assert scorer.metrics() == {"loss": 2**24 + 7, "top1": 0.5}


def test_what_nothing_counted_for_is_no_number():
    scorer = Means()
    scorer.add({"loss": (0.0, 0.0)})
    assert math.isnan(scorer.metrics()["loss"])


def test_what_is_no_scalar_is_told_as_the_task_derives_it():
    scorer = Means(lambda means, weights: {"most": means["share"].max() * weights["n"]})
    scorer.add({"share": (np.array([1.0, 3.0]), 4.0), "n": (1.0, 2.0)})
    assert scorer.metrics() == {"n": 0.5, "most": 1.5}
    assert scorer.report() == ({}, {})


def test_the_charts_of_a_classifier_are_data_that_can_be_drawn():
    charts = scored().report().charts
    counts, names = charts["confusion"]
    assert counts.shape == (CLASSES, CLASSES) and counts.sum() == 2 * 501
    assert names == NAMES
    assert charts["reliability"].count.sum() == 2 * 501
    assert charts["reliability"].error == scored().metrics()["ece"]
    assert {type(chart) for chart in charts.values()} <= CHARTS.keys()


def test_too_many_classes_have_no_matrix():
    charts = scored(scores.MOST + 1, ()).report().charts
    assert charts.keys() == {"reliability"}


@pytest.mark.parametrize("names", [NAMES, ()])
def test_tables_begin_with_the_names_of_their_columns(names):
    tables = scored(names=names).report().tables
    assert tables["per_class"][0] == ("class", "support", *scores.SCORES)
    called = [row[0] for row in tables["per_class"][1:]]
    assert called == list(names or map(str, range(CLASSES)))
    assert [row[0] for row in tables["averages"]] == [
        "average",
        "micro",
        "macro",
        "weighted",
    ]
    assert sum(count for _, _, count in tables["confusion"][1:]) == 2 * 501
