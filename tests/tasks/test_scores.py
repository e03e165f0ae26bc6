"""Classification metrics against scikit-learn, and what they must not depend on."""

import tracemalloc

import numpy as np
import pytest
from sklearn import calibration, metrics

from beit_jax.tasks import scores
from tests.agreement import assert_agrees

CLASSES = 7
PEER = "scikit-learn"


def outputs(label, probability) -> dict[str, np.ndarray]:
    """What an evaluation step gives of (N,) labels and (N, C) probabilities."""
    best = np.argsort(-probability, axis=1, kind="stable")[:, :5]
    return {
        "label": label,
        "best": best,
        "nll": -np.log(probability[np.arange(len(label)), label]),
        "confidence": probability.max(axis=1),
        "weight": np.ones(len(label)),
    }


def drawn(case: str, seed: int = 0, count: int = 501):
    """(labels, probabilities); `case` says which classes there are."""
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.full(CLASSES, 0.3), count)
    label = rng.integers(0, CLASSES, count)
    easy = rng.random(count) < 0.5
    label[easy] = probability.argmax(1)[easy]
    if case == "two classes never occur":
        label[label > 4] = 0
        probability[:, 5:] = 1e-3
    elif case == "a class is never predicted":
        probability[:, 2] = 1e-3
    elif case == "a class is only predicted":
        label[label == 2] = 3
    return label, probability / probability.sum(1, keepdims=True)


CASES = (
    "all classes occur",
    "two classes never occur",
    "a class is never predicted",
    "a class is only predicted",
)


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_scikit_learn(case):
    label, probability = drawn(case)
    rows = scores.gather([outputs(label, probability)])
    got, everything = scores.scalars(rows, CLASSES), list(range(CLASSES))
    guess = probability.argmax(1)

    def agree(what, ours, theirs):
        assert_agrees(PEER, what, ours, theirs, atol=1e-9)

    agree("top1", got["top1"], metrics.accuracy_score(label, guess))
    top5 = metrics.top_k_accuracy_score(label, probability, k=5, labels=everything)
    agree("top5", got["top5"], top5)
    nll = metrics.log_loss(label, probability, labels=everything)
    agree("NLL", got["loss"], nll)
    matrix = metrics.confusion_matrix(label, guess, labels=everything)
    agree("confusion matrix", scores.confusion(rows, CLASSES), matrix)

    def theirs(**settings):
        found = metrics.precision_recall_fscore_support(
            label, guess, zero_division=0, **settings
        )
        return np.array([column for column in found if column is not None])

    each = scores.per_class(rows, CLASSES)
    ours = [each.precision, each.recall, each.f1, each.support]
    agree("precision, recall, F1 a class", ours, theirs(labels=everything))
    for name, values in scores.averages(each).items():
        agree(f"{name} average", list(values.values()), theirs(average=name))
    macro = [got[f"macro_{score}"] for score in scores.SCORES]
    agree("macro average", macro, theirs(average="macro"))
    assert scores.averages(each)["micro"]["f1"] == got["top1"]


def test_calibration_bins_are_those_of_scikit_learn():
    label, probability = drawn("all classes occur")
    rows = scores.gather([outputs(label, probability)])
    found = scores.calibration(rows)
    wanted = calibration.calibration_curve(rows.hit, rows.confidence, n_bins=15)
    some = found.count > 0
    assert 0 < some.sum() < 15  # there are empty ones: seven classes reach 1/7
    ours = [found.accuracy[some], found.confidence[some]]
    assert_agrees(PEER, "calibration curve", ours, wanted, atol=1e-9)
    gaps = np.abs(wanted[0] - wanted[1]) * found.count[some] / len(label)
    assert_agrees(PEER, "ECE", scores.calibration_error(found), gaps.sum(), atol=1e-9)


def test_the_upper_edge_of_a_calibration_bin_belongs_to_it():
    edges, zeros = np.linspace(0, 1, 16), np.zeros(16, int)
    rows = scores.Rows(zeros, zeros[:, None], edges, confidence=edges)
    count = scores.calibration(rows).count
    np.testing.assert_array_equal(count, [2] + [1] * 14)  # 0 is in the first bin


def test_neither_batches_nor_padding_change_a_bit():
    whole = outputs(*drawn(CASES[0]))
    parts = [{k: v[a : a + 64] for k, v in whole.items()} for a in range(0, 501, 64)]
    noise = outputs(*drawn(CASES[0], seed=1, count=11)) | {"weight": np.zeros(11)}
    parts[2] = {k: np.concatenate([noise[k], parts[2][k]]) for k in whole}
    want = scores.scalars(scores.gather([whole]), CLASSES)
    assert scores.scalars(scores.gather(parts), CLASSES) == want


def test_float32_rows_are_summed_in_float64():
    """2^25 + 1 - 1 - ... would stay 2^25 in float32."""
    nll = np.ones(2**10, np.float32)
    nll[0] = 2**25
    rows = outputs(np.zeros(2**10, int), np.full((2**10, 2), 0.5)) | {"nll": nll}
    loss = scores.scalars(scores.gather([rows]), 2)["loss"]
    assert loss == (2**25 + 2**10 - 1) / 2**10


def test_many_classes_need_little_memory():
    """A matrix of 22 000 x 22 000, or of images by classes, would be gigabytes."""
    rng, count = np.random.default_rng(0), 50_000
    best = rng.integers(0, 22_000, (count, 5), np.int32)
    rows = scores.Rows(best[:, 1], best, rng.random(count), rng.random(count))
    tracemalloc.start()
    scores.scalars(rows, 22_000)
    pairs = scores.confused_pairs(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert sum(times for _, _, times in pairs) == count


def test_pairs_are_the_cells_of_the_matrix():
    rows = scores.gather([outputs(*drawn(CASES[1]))])
    matrix = np.zeros((CLASSES, CLASSES), int)
    for label, guess, count in scores.confused_pairs(rows):
        assert count > 0
        matrix[label, guess] = count
    np.testing.assert_array_equal(matrix, scores.confusion(rows, CLASSES))
