"""k nearest neighbours on frozen features, against scikit-learn's."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from beit_jax import knn, sharding
from beit_jax.checkpoints import steps
from beit_jax.run import bank, card
from tests import tiny
from tests.tasks import runs

DEVICE = jax.devices()[:1]


def unit(seed: int, count: int) -> np.ndarray:
    """(count, 5) float32 of length 1."""
    x = np.random.default_rng(seed).normal(size=(count, 5))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (7, 0.07), (20, 0.5)])
def test_votes_are_those_of_scikit_learn(k, temperature, monkeypatch):
    memory, queries = unit(0, 80), unit(1, 60)
    labels = np.random.default_rng(2).integers(0, 4, 80)
    theirs = KNeighborsClassifier(
        k,
        metric="cosine",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(memory, labels)
    monkeypatch.setattr(knn, "_SIMILARITIES", 80 * 25)  # 25 queries in one go
    similarity, rows = knn.nearest(memory, queries, k)
    votes = knn.vote(similarity, labels[rows], 4, temperature)
    np.testing.assert_array_equal(rows, theirs.kneighbors(queries)[1])
    np.testing.assert_array_equal(votes.argmax(1), theirs.predict(queries))
    share = votes / votes.sum(1, keepdims=True)
    np.testing.assert_allclose(share, theirs.predict_proba(queries), atol=1e-5)


def test_of_equal_neighbours_the_first_comes_first():
    memory = unit(0, 3)[[0, 1, 1, 1, 2, 1]]
    _, rows = knn.nearest(memory, memory[1:2], 3)
    assert rows.tolist() == [[1, 2, 3]]


def test_a_small_temperature_leaves_the_nearest_alone_to_vote():
    votes = knn.vote(np.array([[0.9, 0.8, 0.7]]), np.array([[2, 0, 0]]), 3, 1e-4)
    assert votes.tolist() == [[0, 0, 1]]


def test_a_class_without_a_vote_is_no_guess():
    votes = np.array([[0, 0, 3.0, 1.0], [1.0, 0, 0, 0], [0, 2.0, 2.0, 0]])
    assert knn.accuracies(votes, np.array([3, 1, 2])) == (0, 2 / 3)
    assert knn.accuracies(votes, np.array([2, 0, 1])) == (1, 1)


def test_a_bank_leaves_out_what_cannot_be_read_and_still_finds_the_images(tmp_path):
    for number in range(5):
        folder = tmp_path / f"class_{number // 3}"
        folder.mkdir(exist_ok=True)
        colour = (40 * number, 0, 0)
        Image.new("RGB", (32, 32), colour).save(folder / f"{number}.png")
    (tmp_path / "class_0" / "1.png").write_bytes(b"")
    changes = {"data__on_bad": "skip", "data__max_bad": 0.5, "data__batch_size": 2}
    images = {"data__eval_source": {"name": "folder", "path": str(tmp_path)}}
    data = tiny.config("classify", **changes, **images).data
    data.source = data.eval_source
    _, stream = bank.splits(data, (32, 32))

    def encode(image):
        return image.mean((1, 2))[None]

    filled = bank.fill(encode, stream, sharding.make_mesh({"data": 1}, DEVICE))
    assert filled.features[0, :, 0].tolist() == [0, 80, 120, 160]
    assert filled.labels.tolist() == [0, 0, 1, 1]
    shown = filled.images(np.array([[3, 1]]))
    assert shown.shape == (1, 2, 32, 32, 3)
    assert shown[0, :, 0, 0, 0].tolist() == [160, 80]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of pre-training: an encoder with random weights."""
    config = runs.config("pretrain", "pixels")
    task, params, _, _ = runs.start(config)
    path = tmp_path_factory.mktemp("checkpoint")
    return steps.save_params(path, params, {}, config, card.of(config, task, ()))


def test_the_batch_size_changes_nothing(checkpoint, tmp_path):
    told = knn.knn(checkpoint, workdir=tmp_path, k=3)
    assert told == json.loads((tmp_path / "knn.json").read_text())
    assert (told["memory"], told["queries"], len(told["top5"])) == (20, 12, 2)
    assert told["best_top1"] == max(told["top1"]) == told["top1"][told["best_block"]]
    recipe = tiny.config("classify", data__batch_size=5)
    assert knn.knn(checkpoint, recipe, k=3) == told
    with Image.open(tmp_path / "neighbours.png") as picture:
        assert picture.height > 1.5 * picture.width  # 8 queries, 3 neighbours


def test_untrained_is_the_recipes_network_with_random_weights_of_its_seed():
    def kernel(seed):
        params = knn.untrained(tiny.config("classify", seed=seed)).saved.params
        return np.asarray(params["encoder"]["patch_embed"]["proj"]["kernel"])

    assert kernel(0).shape == (8, 8, 3, 32)
    assert (kernel(0) == kernel(0)).all() and (kernel(0) != kernel(1)).any()
    assert len(knn.knn("untrained", tiny.config("classify"), k=3)["top1"]) == 2
    with pytest.raises(ValueError, match="'untrained' are random .* give --config"):
        knn.knn("untrained")


def test_every_image_is_nearest_to_itself(checkpoint):
    recipe = tiny.config("classify")
    recipe.data.eval_source = recipe.data.source
    told = knn.knn(checkpoint, recipe, k=1, features="cls")
    assert told["top1"] == told["top5"] == [1.0, 1.0]


def test_images_must_look_as_the_card_says(checkpoint):
    """How much of them, only a classifier's says."""
    config = tiny.config("classify")
    saved = steps.restore_params(checkpoint)
    config.data.eval_frame.crop_pct = 0.5
    card.check_data(saved, config.data)
    classifier = saved._replace(card=saved.card | {"pool": "mean"})
    with pytest.raises(ValueError, match=r"'crop_pct': 0.5}\. Set"):
        card.check_data(classifier, config.data)
    for name, value in (("augment.interpolation", "bilinear"), ("apply_exif", True)):
        changes = {f"data__{name.replace('.', '__')}": value}
        with pytest.raises(ValueError, match=f"{value!r}"):
            knn.knn(checkpoint, tiny.config("classify", **changes))


@pytest.mark.parametrize(
    "settings, changes, message",
    [
        ({"k": 21}, {}, r"k=21 must be in 1\.\.20, the number of images"),
        ({"temperature": 0}, {}, "temperature=0 above 0"),
        ({"block": 2}, {}, r"no block 2: blocks are 0\.\.1"),
        ({"features": "max"}, {}, "'max' are none of"),
        ({}, {"data__eval_source": {}}, "eval_source is empty; give --config"),
        (
            {},
            {"data__eval_source__num_classes": 3},
            r"have different classes: \['grating_3'\]",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(
    checkpoint, settings, changes, message
):
    with pytest.raises(ValueError, match=message):
        knn.knn(checkpoint, tiny.config("classify", **changes), **settings)


def test_a_tokenizer_is_no_encoder(tmp_path):
    config = tiny.config("tokenizer")
    steps.save_params(tmp_path, {"encoder": {}}, {}, config, {})
    with pytest.raises(ValueError, match="of task 'tokenizer', which has no BEiT enc"):
        knn.knn(tmp_path)
