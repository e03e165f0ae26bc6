"""What a checkpoint tells of the images that it wants, and what it refuses."""

import json
import pathlib

import pytest

from beit_jax import tasks
from beit_jax.checkpoints.steps import Restored
from beit_jax.run import card
from tests import tiny

NAMES = ("ant", "bee", "cat", "dog")
HERE = "checkpoint runs/a/checkpoints/6"


def of(task="classify", **changes):
    config = tiny.config(task, **changes)
    return card.of(config, tasks.build(config), NAMES)


def test_a_card_says_all_that_the_encoder_and_its_images_need():
    made = of(
        model__pixels="imagenet", data__eval_frame__crop_pct=0.875, task__pool="cls"
    )
    assert made == {
        "image_size": [32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "frame": {"name": "centre", "crop_pct": 0.875},
        "apply_exif": False,
        "class_names": list(NAMES),
        "pool": "cls",
        "taps": [],
        "norm_eps": 1e-6,
    }
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize("task", ["pretrain", "tokenizer"])
def test_tasks_without_labels_have_no_classes(task):
    made = of(task)
    assert made["class_names"] == [] and made["pool"] is None
    assert made["norm_eps"] == (None if task == "tokenizer" else 1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"data__eval_frame__crop_pct": 0.5},
            "frame={'name': 'centre', 'crop_pct': 1.0}, the recipe has {",
        ),
        ({"model__pixels": "unit"}, "mean=[0.5, 0.5, 0.5], the recipe has [0.0"),
        ({"data__apply_exif": True}, "apply_exif=False, the recipe has True"),
        ({"data__augment__interpolation": "bilinear"}, "interpolation='bicubic'"),
        ({"task__pool": "cls"}, "pool='mean', the recipe has 'cls'"),
        ({"model__norm_eps": 1e-5}, "norm_eps=1e-06, the recipe has 1e-05"),
        ({"model__taps": (1,)}, "taps=[], the recipe has [1]"),
    ],
)
def test_another_card_is_refused_with_both_values(change, words):
    with pytest.raises(ValueError) as error:
        card.check(of(), of(**change), HERE)
    assert f"{HERE} was trained with {words}" in str(error.value)
    assert "--override_card" in str(error.value)


def test_other_classes_are_refused():
    now = of() | {"class_names": ["ant", "bee", "dog", "cat"]}
    with pytest.raises(ValueError, match=r"class_names=\['ant', .*'dog', 'cat'\]"):
        card.check(of(), now, HERE)


def test_classes_that_nobody_knows_are_taken_in_their_order():
    (note,) = card.check(of() | {"class_names": []}, of(), HERE)
    assert "does not know the names of its classes" in note
    assert card.check(of(), of() | {"class_names": []}, HERE) == []


def test_numbers_in_the_order_of_texts_are_not_taken_for_the_logits():
    """As folders 0 to 11 come; a list of numbers comes in theirs."""
    numbers = [str(i) for i in range(12)]
    nameless, counted = of() | {"class_names": []}, of() | {"class_names": numbers}
    assert len(card.check(nameless, counted, HERE)) == 1
    folders = of() | {"class_names": sorted(numbers)}
    words = (
        r"order of texts, \[0, 1, 10, 11, …\], .* \[0, 1, 2, 3, …\]: .*--class_names"
    )
    with pytest.raises(ValueError, match=words):
        card.check(nameless, folders, HERE)
    assert card.check(folders, folders, HERE) == []


def test_another_size_is_said():
    (note,) = card.check(of(), of(model__image_size=48), HERE)
    assert note == f"{HERE} was trained on 32x32 px and now sees 48x48 px"
    assert card.check(of(), of(), HERE) == []


def test_a_card_from_before_there_were_frames_is_understood():
    """It said how much of the resized image the centre shows."""
    made = of(data__eval_frame__crop_pct=0.875)
    before = {name: value for name, value in made.items() if name != "frame"}
    saved = Restored(pathlib.Path("old"), {}, {}, {}, {}, before | {"crop_pct": 0.875})
    assert card.of_checkpoint(saved) == made
    assert saved.card["crop_pct"] == 0.875


def test_settings_that_are_left_to_their_defaults_make_no_difference():
    said, unsaid = (
        of(data__eval_frame={"name": "whole", **crop})
        for crop in ({"crop_pct": 1.0}, {})
    )
    assert card.check(said, unsaid, HERE) == []
    assert unsaid["frame"] == {"name": "whole", "crop_pct": 1.0}
