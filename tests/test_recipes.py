"""Every recipe of configs/ trains, tells what it did, and can be measured again."""

import importlib.util
import json
import pathlib

import pytest
from PIL import Image

from beit_jax import config as c
from beit_jax import tasks
from beit_jax.evaluate import evaluate
from beit_jax.train import train
from tests import tiny

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RECIPES = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
PICTURES = {"tokenizer": "reconstruction", "pretrain": "prediction"}


def recipe(path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_and_can_be_measured_again(path, tmp_path):
    config = recipe(path)("tiny")
    metrics = train(config, tmp_path, quiet=True)

    assert metrics and all(name.startswith("eval/") for name in metrics)
    assert c.from_dict(json.loads((tmp_path / "config.json").read_text())) == config
    assert tiny.saved_steps(tmp_path)[-1] == config.steps
    assert evaluate(tmp_path) == metrics
    assert train(config, tmp_path, quiet=True) == metrics  # complete: trains no more
    losses = tiny.lines(tmp_path)
    assert losses[-1]["step"] == config.steps
    assert all(isinstance(line["train/loss"], float) for line in losses)
    assert list((tmp_path / "tensorboard").iterdir())
    name = PICTURES.get(config.task.name)
    pictures = list((tmp_path / "pictures").glob("*.png"))
    assert [p.name for p in pictures] == (
        [f"{name}_{config.steps:07d}.png"] if name else []
    )
    for picture in pictures:
        Image.open(picture).verify()


ABLATIONS = [
    ("no_blockwise", {"mask": "random", "target": "tokens", "predict": "masked"}),
    ("pixels", {"mask": "blockwise", "target": "pixels", "predict": "masked"}),
    ("pixels_no_blockwise", {"mask": "random", "target": "pixels"}),
    ("recover_all", {"mask": "blockwise", "target": "tokens", "predict": "all"}),
    ("no_masking", {"mask": "none", "target": "tokens", "predict": "all"}),
    ("plain", {"preset": "paper_plain"}),
]


@pytest.mark.parametrize("name, wanted", ABLATIONS)
def test_table_4_is_a_name_behind_the_recipes(name, wanted):
    (path,) = (p for p in RECIPES if p.stem == "beit_base_patch16_224_pretrain")
    config = recipe(path)(f"{name},tiny")
    has = {
        "mask": config.data.mask.name,
        "target": config.task.target.name,
        "predict": config.task.get("predict", "masked"),
        "preset": config.model.preset,
    }
    assert {key: has[key] for key in wanted} == wanted
    tasks.build(config)
    with pytest.raises(ValueError, match="argument 'no_mask' is unknown; .*no_masking"):
        recipe(path)("no_mask")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_in_full_is_a_valid_config(path):
    config = recipe(path)()
    c.check(config)
    plain = json.loads(config.to_json())
    assert json.loads(c.from_dict(plain).to_json()) == plain
