"""What people get wrong: each with the exit code and the sentence that they get."""

import contextlib
import json
import pathlib
import re
import runpy
import shutil
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from beit_jax.train import train
from tests import tiny

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RECIPE = """
from tests import tiny

def get_config(arg="classify"):
    return tiny.config(arg)
"""


def image(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def broken_files(root: pathlib.Path) -> None:
    """Configs and checkpoints that are none."""
    for name, text in {
        "recipe.py": RECIPE,
        "broken.py": "def get_config(:\n",
        "empty.py": "",
        "broken.json": '{"steps": 3,',
        "list.json": "[1, 2]",
        "typed.json": '{"steps": "ten"}',
        "misspelt.json": '{"steps": 3, "sed": 1}',
        "file": "text",
        "weights.safetensors": "no weights",
        "weights.pth": "no weights",
        "photos.zip": "no archive",
        "rows.csv": "picture,label\na.png,cat\n",
    }.items():
        (root / name).write_text(text)


def broken_data(root: pathlib.Path) -> None:
    """Folders of images: flat, in classes, mixed, with an empty file, without any."""
    image(root / "flat" / "a.png")
    for folder in ("classes", "mixed", "bad"):
        for name in ("cat", "dog"):
            image(root / folder / name / "a.png")
    image(root / "mixed" / "b.png")
    (root / "bad" / "dog" / "b.png").write_bytes(b"")
    (root / "nothing").mkdir()


@pytest.fixture(scope="module")
def world(tmp_path_factory, quick_to_compile) -> pathlib.Path:
    """A folder with files, data, and finished runs: RUNS/classify, RUNS/tokenizer."""
    root = tmp_path_factory.mktemp("errors")
    broken_files(root)
    broken_data(root)
    for task in ("classify", "tokenizer"):
        train(tiny.config(task, steps=1), root / "runs" / task, quiet=True)
    return root


def run(module: str, *arguments: str) -> int:
    """The command in this process -> its exit code."""
    before = set(flags.FLAGS)
    argv, sys.argv = sys.argv, [module, *arguments]
    try:
        runpy.run_module(f"beit_jax.{module}", run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - before:
            with contextlib.suppress(AttributeError):
                delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


def files(root: pathlib.Path) -> set[pathlib.Path]:
    return set(root.rglob("*"))


TRAIN = "train --workdir NEW --config ROOT/recipe.py:classify"
TOKENIZER = "train --workdir NEW --config ROOT/recipe.py:tokenizer"
PRETRAIN = "train --workdir NEW --config ROOT/recipe.py:pretrain"
PROBE = "train --workdir NEW --config ROOT/recipe.py:probe"
FOLDER = f"{TRAIN} --config.data.source.name=folder --config.data.source.path=ROOT/"
CLASSIFIER = "--checkpoint ROOT/runs/classify"
PREDICT = f"predict {CLASSIFIER} --out NEW"
KNN = f"knn {CLASSIFIER} --workdir NEW"

# What is wrong: the command, its exit code, and what the sentence says. ROOT is the
# folder of `world`, NEW a path where nothing is.
USAGE, NUMERIC, DATA, STORAGE, CONFIG = 1, 70, 65, 74, 78
ERRORS = {
    # Keys.
    "a key": (
        f"{TRAIN} --config.optim.lrr=1",
        CONFIG,
        "'optim.lrr'; did you mean 'lr'",
    ),
    "a section": (
        f"{TRAIN} --config.optm.lr=1",
        CONFIG,
        "'optm'; did you mean 'optim'",
    ),
    "a key at the top": (f"{TRAIN} --config.stepz=1", CONFIG, "'stepz'; .* 'steps'"),
    "a key below a number": (f"{TRAIN} --config.steps.x=1", CONFIG, "below 'steps'"),
    "a moved key": (
        f"{TRAIN} --config.data.augment.min_scale=.5",
        CONFIG,
        "data.augment.min_scale is now data.frame.min_scale",
    ),
    "a setting of a model": (f"{TRAIN} --config.model.dpeth=1", CONFIG, "'depth'"),
    "a setting of a task": (f"{TRAIN} --config.task.clases=4", CONFIG, "'classes'"),
    "a setting of a source": (
        f"{TRAIN} --config.data.source.sise=4",
        CONFIG,
        "'sise'; did you mean 'size'",
    ),
    "a setting of augmentation": (
        f"{TRAIN} --config.data.augment.jiter=.4",
        CONFIG,
        "'data.augment.jiter'; did you mean 'jitter'",
    ),
    "a key in a file": (
        "train --workdir NEW --config ROOT/misspelt.json",
        CONFIG,
        "unknown key 'sed'; did you mean 'seed'",
    ),
    # Names.
    "a task": (
        f"{TRAIN} --config.task.name=clasify",
        CONFIG,
        "no 'clasify' in .*tasks",
    ),
    "a network": (f"{TRAIN} --config.model.name=resnet", CONFIG, "no 'resnet' .* vit"),
    "a size": (f"{TRAIN} --config.model.variant=huge", CONFIG, "no 'huge' .* large"),
    "a preset": (f"{TRAIN} --config.model.preset=v2", CONFIG, "no 'v2' .* released"),
    "pixels": (f"{TRAIN} --config.model.pixels=bgr", CONFIG, "no 'bgr' .* imagenet"),
    "a source": (
        f"{TRAIN} --config.data.source.name=lmdb",
        CONFIG,
        "no 'lmdb' .* tfds",
    ),
    "a frame": (
        f"{TRAIN} --config.data.frame.name=crop",
        CONFIG,
        "no 'crop' .* centre",
    ),
    "a head": (f"{TRAIN} --config.task.head.name=mlp", CONFIG, "no 'mlp' .* linear"),
    "a pool": (f"{TRAIN} --config.task.pool=max", CONFIG, "pool='max' must be one of"),
    "a target": (
        f"{PRETRAIN} --config.task.target.name=hog",
        CONFIG,
        "no 'hog' .*pixels",
    ),
    "a mask": (
        f"{PRETRAIN} --config.data.mask.name=grid",
        CONFIG,
        "no 'grid' .*random",
    ),
    "an optimizer": (f"{TRAIN} --config.optim.name=adam", CONFIG, "no 'adam' .* adamw"),
    "a schedule": (
        f"{TRAIN} --config.optim.schedule.name=exp",
        CONFIG,
        "no 'exp' in optim.schedule; it has constant, cosine",
    ),
    "a metric": (
        f"{TRAIN} --config.checkpoint.best=eval/top2",
        CONFIG,
        "best='eval/top2' is no metric .* did you mean 'eval/top",
    ),
    "a dtype": (f"{TRAIN} --config.dtype=float16", CONFIG, "dtype='float16' must be"),
    # Types.
    "no whole number": (f"{TRAIN} --config.steps=1e3", USAGE, "steps=1e3: invalid lit"),
    "no number": (
        f"{TRAIN} --config.optim.lr=fast",
        USAGE,
        "could not convert .*'fast'",
    ),
    "a text for a number": (
        "train --workdir NEW --config ROOT/typed.json",
        CONFIG,
        "steps='ten' must be of type int",
    ),
    "a text for a section": (
        f"{TRAIN} --config.task.head=linear",
        CONFIG,
        "head='linear' must be of type section",
    ),
    "a number for a text": (
        f"{TRAIN} --config.task.pool=3",
        CONFIG,
        "pool=3 must be of type str",
    ),
    # Values.
    "no step": (f"{TRAIN} --config.steps=0", CONFIG, "steps=0 must be at least 1"),
    "all labels smooth": (
        f"{TRAIN} --config.task.label_smoothing=2.",
        CONFIG,
        "label_smoothing=2.0 must be at least 0 and below 1",
    ),
    "an average that stays": (
        f"{TRAIN} --config.optim.ema_decay=1.",
        CONFIG,
        "ema_decay=1.0 must be .* below 1 .1 would keep the first weights",
    ),
    "eps": (f"{TRAIN} --config.optim.eps=-1", CONFIG, "eps=-1.0 must be above 0"),
    "b1": (f"{TRAIN} --config.optim.b1=1", CONFIG, "b1=1.0 must be .* below 1"),
    "b2": (f"{TRAIN} --config.optim.b2=0", CONFIG, "b2=0.0 must be above 0 and below"),
    "weight decay": (
        f"{TRAIN} --config.optim.weight_decay=1e10",
        CONFIG,
        "weight_decay=10000000000.0 must be in 0 .. 100",
    ),
    "a rate that is no number": (
        f"{TRAIN} --config.optim.lr=nan",
        CONFIG,
        "optim.lr=nan must be at least 0",
    ),
    "layer decay": (f"{TRAIN} --config.optim.layer_decay=0", CONFIG, "in 0.1 .. 1"),
    "layer scale": (
        f"{TRAIN} --config.model.layer_scale=-1.",
        CONFIG,
        "layer_scale=-1.0 must be at least 0",
    ),
    "layer scale that is no number": (
        f"{TRAIN} --config.model.layer_scale=nan",
        CONFIG,
        "layer_scale='nan' must be of type float",
    ),
    "a width of 0": (
        f"{TRAIN} --config.model.dim=0",
        CONFIG,
        "dim=0 must be at least 1",
    ),
    "no heads": (
        f"{TRAIN} --config.model.heads=0",
        CONFIG,
        "heads=0 must be at least 1",
    ),
    "no MLP": (f"{TRAIN} --config.model.mlp_ratio=0.", CONFIG, "=0.0 must be above 0"),
    "all paths dropped": (
        f"{TRAIN} --config.model.drop_path=1.",
        CONFIG,
        "and below 1",
    ),
    "a moving average of codes": (
        f"{TOKENIZER} --config.model.decay=2.",
        CONFIG,
        "decay=2.0 must be at least 0 and below 1",
    ),
    "no codes": (
        f"{TOKENIZER} --config.model.vocab=0",
        CONFIG,
        "vocab=0 must be at le",
    ),
    "a seed of a subset": (
        f"{TRAIN} --config.data.source.name=digits --config.data.source.size=32 "
        "--config.data.source.subset_seed=-1 --config.data.source.num_examples=9",
        CONFIG,
        "takes no setting 'num_examples'|subset_seed=-1 must be in 0 ..",
    ),
    "a crop of nothing": (
        f"{TRAIN} --config.data.eval_frame.crop_pct=0.",
        CONFIG,
        "crop_pct=0.0 must be above 0",
    ),
    "jitter": (
        f"{TRAIN} --config.data.augment.jitter=2.",
        CONFIG,
        "jitter=2.0 must be",
    ),
    "RandAugment": (
        f"{TRAIN} --config.data.augment.randaugment=rand-x",
        CONFIG,
        "randaugment='rand-x'",
    ),
    "a mask's aspect": (
        f"{PRETRAIN} --config.data.mask.min_aspect=-1.",
        CONFIG,
        "min_aspect=-1.0 must be above 0",
    ),
    "no checkpoint kept": (f"{TRAIN} --config.checkpoint.keep=0", CONFIG, "at least 1"),
    "a loss that is not finite": (
        f"{TRAIN} --config.optim.lr=1e39",
        NUMERIC,
        "at step",
    ),
    # Sizes that do not go together.
    "heads and width": (f"{TRAIN} --config.model.heads=5", CONFIG, "of heads=5"),
    "image and patches": (
        f"{TRAIN} --config.model.image_size=33",
        CONFIG,
        "image_size=33 must be a multiple of patch_size=8, 32 for example",
    ),
    "two sides": (
        f"{TRAIN} --config.model.image_size=32,33",
        CONFIG,
        r"image_size=\(32, 33\) must be a multiple",
    ),
    "batch and parts": (
        f"{TRAIN} --config.data.batch_size=7",
        CONFIG,
        "batch_size=7 must be a multiple of 2",
    ),
    "devices": (f"{TRAIN} --config.mesh.data=3", CONFIG, "does not cover 1 devices"),
    "more masked than there is": (
        f"{PRETRAIN} --config.data.mask.max_patches=99",
        CONFIG,
        "max_patches=99 must be in 1..16",
    ),
    "a token's size": (
        f"{TOKENIZER} --config.model.patch_size=6",
        CONFIG,
        "power of two",
    ),
    "tokens and patches": (
        f"{PRETRAIN} --config.task.target.checkpoint=ROOT/runs/tokenizer "
        "--config.task.target.untrained={} --config.model.patch_size=16",
        CONFIG,
        "gives 4x4 whole tokens .* but there are 2x2 patches",
    ),
    "a warm-up": (
        f"{TRAIN} --config.optim.decay_steps=1",
        CONFIG,
        "decay_steps=1 must be beyond the warm-up of 2",
    ),
    # Heads and classes.
    "one class": (
        f"{TRAIN} --config.task.classes=1",
        CONFIG,
        "classes=1 must be at lea",
    ),
    "other classes": (
        f"{TRAIN} --config.task.classes=7",
        CONFIG,
        "classes=7, but .* 4",
    ),
    "classes of the test": (
        f"{TRAIN} --config.data.eval_source.num_classes=3",
        CONFIG,
        "classes=4, but synthetic has 3",
    ),
    "classes that it does not know": (
        "evaluate --workdir ROOT/runs/classify --data ROOT/classes",
        CONFIG,
        "none of the 4 classes .*: cat, dog",
    ),
    "no class folders": (
        "evaluate --workdir ROOT/runs/classify --data ROOT/flat",
        CONFIG,
        "lie in no class folders; put those of each class .* grating_0",
    ),
    "names in a file": (
        "evaluate --workdir ROOT/runs/classify --class_names @ROOT/none",
        CONFIG,
        "class_names=@ROOT/none must name a text file",
    ),
    # Checkpoints.
    "no run": ("evaluate --workdir ROOT/none", CONFIG, "there is no checkpoint"),
    "a run without a save": (
        "evaluate --workdir ROOT/nothing",
        CONFIG,
        "no checkpoint",
    ),
    "a text for a checkpoint": ("evaluate --workdir ROOT/file", CONFIG, "file"),
    "no safetensors": (
        "evaluate --workdir ROOT/weights.safetensors",
        CONFIG,
        "weights",
    ),
    "no PyTorch file": ("evaluate --workdir ROOT/weights.pth", CONFIG, "weights.pth"),
    "a default that is not there": (
        f"{TRAIN} --config.init_from=rnus/pretrain",
        CONFIG,
        "no checkpoint 'rnus/pretrain': .* hf:owner/name",
    ),
    "no name on the hub": (
        f"{TRAIN} --config.init_from=hf:beit",
        CONFIG,
        "'hf:beit' must be hf:owner/name",
    ),
    "weights of another size": (
        f"{TRAIN} --config.init_from=ROOT/runs/classify --config.model.dim=64",
        CONFIG,
        "ROOT/runs/classify",
    ),
    "weights of another task": (
        f"{TRAIN} --config.init_from=ROOT/runs/tokenizer",
        CONFIG,
        "ROOT/runs/tokenizer",
    ),
    "parameters that nothing gives": (
        f"{TRAIN} --config.init_fresh=head",
        CONFIG,
        "init_fresh='head' .* init_from is empty",
    ),
    "a run goes on otherwise": (
        "train --workdir ROOT/runs/classify --config ROOT/recipe.py:classify "
        "--config.optim.lr=1",
        CONFIG,
        "optim.lr=0.0015, this run has 1.0",
    ),
    "a target that is no tokenizer": (
        f"{PRETRAIN} --config.task.target.checkpoint=ROOT/runs/classify "
        "--config.task.target.untrained={}",
        CONFIG,
        "is of task 'classify'; the target needs one of task 'tokenizer'",
    ),
    "a probe of a tokenizer": (
        f"{PROBE} --config.task.checkpoint=ROOT/runs/tokenizer",
        CONFIG,
        "is of task 'tokenizer'; a probe needs",
    ),
    "labels of a tokenizer": (
        "predict --checkpoint ROOT/runs/tokenizer --out NEW --images ROOT/flat",
        CONFIG,
        "labels",
    ),
    "neighbours of a tokenizer": (
        "knn --checkpoint ROOT/runs/tokenizer --workdir NEW",
        CONFIG,
        "no BEiT encoder",
    ),
    "random weights of nothing": (
        "knn --checkpoint untrained --workdir NEW",
        CONFIG,
        "give --config",
    ),
    "nothing to convert": ("convert ROOT/none NEW", CONFIG, "there is no checkpoint"),
    "a tokenizer for timm": (
        "convert ROOT/runs/tokenizer NEW.safetensors --to timm",
        CONFIG,
        "",
    ),
    # Data.
    "no data": (f"{FOLDER}none", CONFIG, "ROOT/none"),
    "no images": (f"{FOLDER}nothing", CONFIG, "no images at ROOT/nothing"),
    "images without classes": (f"{FOLDER}flat", CONFIG, "classes=4, but flat has 0"),
    "images beside folders": (f"{FOLDER}mixed", CONFIG, "beside and inside .* 'b.png'"),
    "no archive": (f"{FOLDER}photos.zip", DATA, "photos.zip"),
    "no list": (
        f"{TRAIN} --config.data.source.name=list --config.data.source.path=ROOT/none.csv",
        CONFIG,
        "none.csv",
    ),
    "a list without images": (
        f"{TRAIN} --config.data.source.name=list --config.data.source.path=ROOT/rows.csv",
        CONFIG,
        "image",
    ),
    "no part of the digits": (
        f"{TRAIN} --config.data.source.name=digits --config.data.source.split=val",
        CONFIG,
        "no split 'val' of digits",
    ),
    "an empty file": (
        "check_data --data ROOT/bad --out NEW",
        DATA,
        "b.png: the file is",
    ),
    # Paths.
    "no recipe": (
        "train --workdir NEW --config ROOT/none.py",
        CONFIG,
        "no file 'ROOT/none.py'",
    ),
    "a folder for a recipe": ("train --workdir NEW --config ROOT", CONFIG, "no file"),
    "a recipe that is no Python": (
        "train --workdir NEW --config ROOT/broken.py",
        CONFIG,
        "broken.py is no recipe in Python: .* line 1",
    ),
    "a recipe that gives nothing": (
        "train --workdir NEW --config ROOT/empty.py",
        CONFIG,
        "no function get_config",
    ),
    "a variant": (
        "train --workdir NEW --config configs/digits_tokenizer.py:tny",
        CONFIG,
        "recipe argument 'tny' is unknown; it can be tiny",
    ),
    "no JSON": ("train --workdir NEW --config ROOT/broken.json", CONFIG, "is no JSON"),
    "a list for a config": (
        "train --workdir NEW --config ROOT/list.json",
        CONFIG,
        "has no settings by name",
    ),
    "a file for a folder": (
        TRAIN.replace("NEW", "ROOT/file"),
        STORAGE,
        "ROOT/file.*: Not a directory",
    ),
    "a folder below a file": (
        TRAIN.replace("NEW", "ROOT/file/run"),
        STORAGE,
        "ROOT/file.*: Not a directory",
    ),
    "findings below a file": (
        f"predict {CLASSIFIER} --images ROOT/flat --out ROOT/file/out",
        STORAGE,
        "ROOT/file/out: Not a directory",
    ),
    # Commands.
    "no config": ("train --workdir NEW", USAGE, "config must have a value"),
    "flags in the wrong order": (
        "train --config.steps=1 --config ROOT/recipe.py --workdir NEW",
        USAGE,
        "before a value for --config",
    ),
    "a flag": (f"{TRAIN} --worksir=x", USAGE, "Did you mean: workdir"),
    "too many words": ("convert ROOT/a NEW c", USAGE, "it takes SOURCE TARGET, not"),
    "no image": (PREDICT, CONFIG, "no images: no path is given"),
    "an image that is not there": (
        f"{PREDICT} --images ROOT/none.png",
        CONFIG,
        "no file, folder or archive 'ROOT/none.png'",
    ),
    "what to predict": (f"{PREDICT} --what boxes", CONFIG, "no 'boxes' in --what"),
    "a patch": (
        f"{PREDICT} --what attention --patch 9,9 --images ROOT/flat",
        CONFIG,
        "no patch in row 9, column 9: there are 4x4",
    ),
    "a named evaluation": (
        "evaluate --workdir ROOT/runs/classify --evals v2",
        CONFIG,
        "no 'v2' in the evals",
    ),
    "no neighbours": (f"{KNN} --k 0", CONFIG, "k=0 must be in 1..20"),
    "a block": (f"{KNN} --block 9", CONFIG, "no block 9: blocks are 0..1"),
    "data and a recipe": ("check_data --out NEW", CONFIG, "give --data .* or --config"),
    "curves of nothing": ("curves ROOT/nothing --out NEW.png", CONFIG, "no metrics in"),
    "a curve": (
        "curves ROOT/runs/classify --metric train/los --out NEW.png",
        CONFIG,
        "did you mean 'train/loss'",
    ),
    "a step that did not fail": (
        "replay --workdir ROOT/runs/classify",
        CONFIG,
        "no failed_step_N.json",
    ),
    "a size to convert to": (
        "convert ROOT/runs/classify NEW --image_size 32,x",
        CONFIG,
        "image_size=32,x must be pixels",
    ),
}
# These have begun before they know, and say what they found.
LEAVES = {"a loss that is not finite", "an empty file"}


@pytest.mark.parametrize("what", ERRORS)
def test_a_mistake_is_told_in_a_sentence(what, world, tmp_path, capsys):
    line, code, sentence = ERRORS[what]
    new, root = tmp_path / "new", str(world)
    before = files(world)
    line = line.replace("ROOT", root).replace("NEW", str(new))
    got = run(*line.split(" "))
    out, err = capsys.readouterr()
    told = f"{out}\n{err}"
    assert got == code, told
    assert re.search(sentence.replace("ROOT", re.escape(root)), told, re.DOTALL), told
    assert "Traceback" not in told
    if code > USAGE and what not in LEAVES:
        assert [ln for ln in err.splitlines() if ln.startswith("error: ")], told
    assert files(world) == before
    assert what in LEAVES or not [*tmp_path.iterdir()], "it left something behind"


def test_a_config_of_a_run_is_taken_without_running_anything(world, tmp_path, capsys):
    """Also one that an earlier version wrote, and to evaluate with."""
    saved = json.loads((world / "runs" / "classify" / "config.json").read_text())
    saved["data"]["augment"]["crop_pct"] = saved["data"]["eval_frame"].pop("crop_pct")
    (tmp_path / "config.json").write_text(json.dumps(saved))
    given = ("--config", f"{tmp_path}/config.json")
    assert run("train", *given, "--workdir", f"{tmp_path}/run") == 0
    shutil.rmtree(tmp_path / "run" / "pictures")
    first = tiny.fingerprint(world / "runs" / "classify")
    assert tiny.fingerprint(tmp_path / "run") == first
    capsys.readouterr()
    assert run("evaluate", *given, "--workdir", f"{world}/runs/classify") == 0
    assert "eval/top1" in capsys.readouterr().out


def test_a_recipe_beside_a_checkpoint_is_not_run(world, tmp_path, capsys):
    copied = tmp_path / "run"
    shutil.copytree(world / "runs" / "classify", copied)
    for name in ("config.py", "recipe.py", "get_config.py", "__init__.py"):
        (copied / name).write_text("raise SystemExit(99)\n")
    assert run("evaluate", "--workdir", str(copied)) == 0
    images = ("--images", f"{world}/flat", "--out", f"{tmp_path}/out")
    assert run("predict", "--checkpoint", str(copied), *images) == 0
