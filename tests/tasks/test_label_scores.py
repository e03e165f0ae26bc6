"""Metrics of several labels and of numbers against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from beit_jax.tasks import label_scores, number_scores
from tests.agreement import assert_agrees

PEER = "scikit-learn"
CLASSES = 6


def drawn(seed: int = 0, count: int = 203, ties: bool = False):
    rng = np.random.default_rng(seed)
    score = rng.random((count, CLASSES))
    label = rng.random((count, CLASSES)) < score**2
    score = np.round(score, 1) if ties else score
    label[:, 5] = False  # a class that no image has
    return {
        "label": label,
        "score": score,
        "loss": rng.random(count),
        "weight": np.ones(count),
    }


def scored(*batches):
    scorer = label_scores.LabelScorer(CLASSES, ())
    for batch in batches:
        scorer.add(batch)
    return scorer


@pytest.mark.parametrize("ties", [False, True])
def test_scores_of_labels_are_those_of_scikit_learn(ties):
    batch = drawn(ties=ties)
    label, score = batch["label"], batch["score"]
    scorer = scored(batch)
    got, table = scorer.metrics(), scorer.report().tables["per_class"]
    columns = dict(zip(table[0], zip(*table[1:], strict=True), strict=True))

    def agree(what, ours, theirs):
        assert_agrees(PEER, what, ours, theirs, atol=1e-9)

    precision = metrics.average_precision_score(
        label[:, :5], score[:, :5], average=None
    )
    agree("average precision", columns["average_precision"][:5], precision)
    agree("mAP", got["map"], precision.mean())
    assert np.isnan(columns["average_precision"][5])
    guess = score >= 0.5
    each = metrics.f1_score(label, guess, average=None, zero_division=0)
    agree("F1 a class", columns["f1"], each)
    for average in ("micro", "macro"):
        theirs = metrics.f1_score(label, guess, average=average, zero_division=0)
        agree(f"{average} F1", got[f"{average}_f1"], theirs)


def test_neither_batches_nor_padding_change_a_score():
    whole = drawn()
    parts = [{k: v[a : a + 64] for k, v in whole.items()} for a in range(0, 203, 64)]
    noise = drawn(seed=1, count=9) | {"weight": np.zeros(9)}
    parts[1] = {k: np.concatenate([noise[k], parts[1][k]]) for k in whole}
    assert scored(*parts).metrics() == scored(whole).metrics()


@pytest.mark.parametrize("targets", [1, 3])
def test_scores_of_numbers_are_those_of_scikit_learn(targets):
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((101, targets)) * [1, 10, 100][:targets]
    found = wanted + rng.standard_normal((101, targets))
    scorer = number_scores.NumberScorer([str(i) for i in range(targets)])
    rows = {"wanted": wanted, "found": found, "loss": np.ones(101)}
    scorer.add(rows | {"weight": np.ones(101)})
    scorer.add(rows | {"weight": np.zeros(101)})
    got = scorer.metrics()
    for name, theirs in (
        ("mae", metrics.mean_absolute_error),
        ("rmse", metrics.root_mean_squared_error),
        ("r2", metrics.r2_score),
    ):
        assert_agrees(PEER, name, got[name], theirs(wanted, found), atol=1e-9)
        if targets > 1:
            each = theirs(wanted, found, multioutput="raw_values")
            table = scorer.report().tables["per_target"]
            column = table[0].index(name)
            assert_agrees(PEER, name, [row[column] for row in table[1:]], each, 1e-9)


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_r2_of_equal_numbers_is_that_of_scikit_learn(off):
    wanted = np.ones((5, 1))
    got = number_scores.scores(wanted, wanted + off)["r2"]
    assert got == metrics.r2_score(wanted, wanted + off)
