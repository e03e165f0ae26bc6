"""What README says of adding things, done: one of each, in a recipe of a user's own."""

import jax
import numpy as np
import pytest
from PIL import Image

import beit_jax
from beit_jax import config as config_lib
from beit_jax import heads, targets, tasks
from beit_jax.data import annotations, augmentations, sources
from beit_jax.evaluate import evaluate
from beit_jax.predict import predict
from beit_jax.run import predictions
from beit_jax.train import train
from tests import tiny

RECIPE = '''
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax import config as c
from beit_jax.data.annotations import ANNOTATIONS, Annotation
from beit_jax.data.augmentations import AUGMENTATIONS, Augmentation
from beit_jax.data.sources import SOURCES, Info, Record, Source
from beit_jax.heads import HEADS
from beit_jax.run.found import save_arrays
from beit_jax.run.predictions import PREDICTIONS, OfTask
from beit_jax.targets import TARGETS
from beit_jax.tasks import TASKS
from beit_jax.tasks.classify import Classify
from tests import tiny


class Largest(nn.Module):
    """Logits from the largest feature of all patches."""

    classes: int

    @nn.compact
    def __call__(self, features, *, train=False):
        return nn.Dense(self.classes, name="top")(features.last.patches.max(axis=1))


class Greyness:
    """The mean of each patch."""

    tokens, frozen, outputs = False, None, 1

    def __init__(self, grid, patch_size):
        self.grid, self.patch_size = grid, patch_size
        self.image_size = tuple(side * patch_size for side in grid)

    def __call__(self, frozen, image):
        (h, w), p = self.grid, self.patch_size
        grey = image.astype(jnp.float32).mean(-1) / 255
        return grey.reshape(-1, h, p, w, p).mean((2, 4)).reshape(-1, h * w, 1)

    def loss(self, predicted, wanted):
        return jnp.square(predicted - wanted)[..., 0]

    def best(self, predicted):
        return predicted

    def paint(self, frozen, wanted, image):
        grey = 255 * wanted.reshape(-1, *self.grid, 1)
        picture = grey.repeat(self.patch_size, 1).repeat(self.patch_size, 2)
        return picture.clip(0, 255).astype(jnp.uint8).repeat(3, 3)


class Halves(Source):
    """Images whose upper or lower half is white."""

    def __init__(self):
        self.info = Info("halves", 16, ("upper", "lower"), 1)

    def read(self, index):
        image = np.zeros((32, 32, 3), np.uint8)
        image[16 * (index % 2) :][:16] = 255
        return Record(image, index % 2, more={"white": np.float32(image.mean() / 255)})

    def describe(self, index):
        return f"half {index}"


class Sharp(Classify):
    """Classification without label smoothing, which looks at shade and white, too."""

    outputs = ("labels", "entropy")

    def __init__(self, config, classes, head=()):
        super().__init__(config, classes, label_smoothing=0.0, head=head)
        number = jax.ShapeDtypeStruct((), np.float32)
        self.train_spec |= {"shade": number, "white": number}
        self.eval_spec = self.train_spec | {}
        del self.eval_spec["shade"]

    def train_loss(self, params, batch, ctx):
        loss, aux = super().train_loss(params, batch, ctx)
        for name in ("shade", "white"):
            count = jnp.float32(len(batch[name]))
            aux.metrics[name] = (jnp.sum(batch[name]), count)
        return loss, aux

    def predict(self, what, params, batch, ctx):
        found = super().predict(what, params, batch, ctx)
        if what == "labels":
            return found
        logs = found["log_probability"]
        return {"entropy": -jnp.sum(jnp.exp(logs) * logs, axis=1)}


class Entropy(OfTask):
    """How unsure a classifier is, in nats."""

    files = ("entropy.npz",)

    @staticmethod
    def write(found, out, asked):
        save_arrays(out / "entropy.npz", ((one.name, one.found) for one in found))


WHITE = Annotation(
    {"white": np.float32},
    ("white",),
    "share of white",
    lambda record, wanted: {"white": record.get("white")},
    follows=False,
)
SHADE = Augmentation(
    numbers=lambda settings, shapes: int("shade" in shapes),
    pixels=lambda settings, u, view: view.point(lambda x: int(x * u[0])),
    arrays={"shade": np.float32},
    make=lambda settings, u, size: {"shade": np.float32(u[0])},
)

ANNOTATIONS["white"] = WHITE
AUGMENTATIONS["shade"] = SHADE
PREDICTIONS["entropy"] = Entropy
HEADS["largest"] = Largest
TARGETS["greyness"] = Greyness
SOURCES["halves"] = Halves
TASKS["sharp"] = Sharp


def get_config(arg):
    kind = arg or "pretrain"
    changes = {
        "pretrain": {"name": "pretrain", "target": {"name": "greyness"}},
        "sharp": {"name": "sharp", "classes": 2, "head": {"name": "largest"}},
    }
    task = "pretrain" if kind == "pretrain" else "classify"
    halves = {"name": "halves"}
    config = tiny.config(task, data__source=halves, data__eval_source=halves)
    config.task, config.eval.pictures = changes[kind], 2
    return config
'''


ADDED = (
    (annotations.ANNOTATIONS, "white"),
    (augmentations.AUGMENTATIONS, "shade"),
    (predictions.PREDICTIONS, "entropy"),
    (heads.HEADS, "largest"),
    (targets.TARGETS, "greyness"),
    (sources.SOURCES, "halves"),
    (tasks.TASKS, "sharp"),
)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Arg -> the config of the recipe; its lines in the tables go with the test."""
    for table, name in ADDED:
        monkeypatch.setitem(table, name, None)
        monkeypatch.delitem(table, name)
    file = tmp_path / "recipe.py"
    file.write_text(RECIPE)
    return lambda arg: config_lib.load(file, arg)


def test_what_a_recipe_adds_is_trained_measured_predicted_with_and_loaded(
    recipe, tmp_path
):
    config = recipe("sharp")
    metrics = train(config, tmp_path / "run", quiet=True)
    assert evaluate(tmp_path / "run", config) == metrics
    line = tiny.lines(tmp_path / "run")[0]
    assert 0.3 < line["train/white"] < 0.7 and 0.2 < line["train/shade"] < 0.8
    image = np.zeros((32, 32, 3), np.uint8)
    beit = beit_jax.load(tmp_path / "run", config=config)
    logits = jax.jit(beit.module.apply)(beit.variables, beit.preprocess(image))
    assert logits.shape == (1, 2) and {*beit.variables["params"]} == {"encoder", "top"}
    assert tuple(beit.card["class_names"]) == ("upper", "lower")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), (200, 10, 10)).save(tmp_path / "photos" / "a.png")
    (found,) = predict(tmp_path / "run", [tmp_path / "photos"], config=config)
    assert {*found.found["label"]} == {"upper", "lower"}
    (one,) = predict(tmp_path / "run", [tmp_path / "photos"], "entropy", config=config)
    share = found.found["probability"]
    entropy = -(share * np.log(share)).sum()
    np.testing.assert_allclose(one.found["entropy"], entropy, rtol=1e-5)
    predictions.PREDICTIONS["entropy"].write([one], tmp_path, None)
    assert np.load(tmp_path / "entropy.npz")["entropy"] == one.found["entropy"]
    (found,) = predict(tmp_path / "run", [tmp_path / "photos"], "features")
    assert found.found["cls"].shape == (2, 32)


def test_a_target_that_a_recipe_adds_is_learnt_and_painted(recipe, tmp_path):
    metrics = train(recipe("pretrain"), tmp_path / "run", quiet=True)
    assert np.isfinite(metrics["eval/loss"])
    assert list((tmp_path / "run" / "pictures").glob("prediction_*.png"))


def test_without_its_recipe_a_head_is_named_and_never_dropped(
    recipe, tmp_path, monkeypatch
):
    train(recipe("sharp"), tmp_path / "run", quiet=True)
    monkeypatch.delitem(heads.HEADS, "largest")
    with pytest.raises(ValueError, match="no 'largest' in beit_jax.heads; it has"):
        beit_jax.load(tmp_path / "run")
