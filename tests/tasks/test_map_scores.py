import numpy as np
import pytest

from beit_jax.tasks import map_scores
from beit_jax.tasks.pixel_losses import IGNORED
from tests.agreement import assert_agrees
from tests.models import official

PEER = "mmsegmentation, IoUMetric"


def counts(found, labels, classes: int) -> np.ndarray:
    valid = labels != IGNORED
    pair = labels[valid].astype(int) * classes + found[valid]
    return np.bincount(pair, minlength=classes**2).reshape(classes, classes)


def test_scores_are_those_recorded():
    arrays, meta = official.load("seg_metrics")
    seen = 0
    for number, case in enumerate(meta["cases"]):
        found, labels = arrays[f"{number}/pred"], arrays[f"{number}/label"]
        if found.max() >= case["K"]:
            continue  # a prediction that is no class: ours is always one
        scorer = map_scores.MapScorer(case["K"], ())
        for image, label in zip(found, labels, strict=True):
            scorer.add({"confusion": counts(image, label, case["K"]), "nll": 0.0})
        got, each = scorer.metrics(), map_scores.per_class(scorer._confusion)
        for ours, theirs in {
            "miou": "mIoU",
            "mean_accuracy": "mAcc",
            "pixel_accuracy": "aAcc",
            "mean_dice": "mDice",
        }.items():
            wanted = arrays[f"{number}/{theirs}"]
            assert_agrees(PEER, f"means: {theirs}", got[ours], wanted, 2e-7)
        for name, theirs in zip(
            each._fields, ("IoU", "Acc", "Precision", "Dice"), strict=True
        ):
            ours, wanted = getattr(each, name), arrays[f"{number}/{theirs}"]
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(wanted))
            pair = np.nan_to_num(ours), np.nan_to_num(wanted)
            assert_agrees(PEER, f"each class: {theirs}", *pair, 2e-7)
        seen += 1
    assert seen


def test_counts_beyond_float32_are_exact():
    scorer = map_scores.MapScorer(2, ())
    for _ in range(3):
        confusion = np.array([[2**30, 1], [0, 2**30]], np.int32)
        scorer.add({"confusion": confusion, "nll": 0.0})
    assert scorer._confusion.tolist() == [[3 * 2**30, 3], [0, 3 * 2**30]]


def test_nothing_to_measure_is_not_a_number():
    metrics = map_scores.MapScorer(2, ()).metrics()
    assert np.isnan([*metrics.values()]).all()


def test_the_report_names_classes_and_their_pixels():
    scorer = map_scores.MapScorer(2, ("road", "sky"))
    scorer.add({"confusion": np.array([[3, 1], [0, 4]]), "nll": 2.0})
    report = scorer.report()
    head, road, sky = report.tables["per_class"]
    assert head[:2] == ("class", "iou") and road[0] == "road"
    assert dict(zip(head, sky, strict=True))["iou"] == pytest.approx(0.8)
    assert scorer.metrics()["loss"] == pytest.approx(0.25)
