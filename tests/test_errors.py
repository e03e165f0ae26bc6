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
from absl import flags, logging
from PIL import Image

from beit_jax import command
from beit_jax.train import train
from tests import tiny

RECIPE = """
from tests import tiny

def get_config(arg="classify"):
    return tiny.config(arg, steps=1)
"""

MODULAR = """
from beit_jax import config as c

def get_config(arg="nobodys.head"):
    return c.new(steps=1, modules=(arg,))
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
        "modular.py": MODULAR,
        "modular.json": '{"steps": 3, "modules": ["nobodys.head"]}',
        "none.py": "def get_config(arg=''):\n    pass\n",
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
def world(tmp_path_factory) -> pathlib.Path:
    """A folder with files, data, and finished runs: RUNS/classify, RUNS/tokenizer."""
    root = tmp_path_factory.mktemp("errors")
    broken_files(root)
    broken_data(root)
    for task in ("classify", "tokenizer"):
        config = tiny.config(task, steps=1)
        train(config, root / "runs" / task, quiet=True)
    return root


@pytest.fixture(autouse=True)
def this_process_goes_on(monkeypatch):
    monkeypatch.setattr(command, "_leave", sys.exit)


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
        logging.set_verbosity(logging.ERROR)  # absl's handler stays: as in a command


@pytest.mark.parametrize("kind", [OSError, ValueError, RuntimeError])
@pytest.mark.parametrize(
    "text, words",
    [
        ("write failed [OS error 28]", "No space left on device; make room"),
        ("write failed [os_error_code='28']", "No space left on device; make room"),
        ("no folder [os_error_code='13']", "Permission denied; name a folder that can"),
    ],
)
def test_what_a_disk_says_is_told_by_whatever_error(kind, text, words, capsys):
    with pytest.raises(SystemExit) as ended, command._sentences():
        raise kind(text)
    assert ended.value.code == 74
    assert f"error: {text}: {words}" in capsys.readouterr().err


def files(root: pathlib.Path) -> set[pathlib.Path]:
    return set(root.rglob("*"))


# Words that stand for more: of a training run flags follow without their "--config.".
TRAINING = {
    "AGAIN": "train --workdir RUN --config ROOT/recipe.py:classify",
    "PRETRAIN": "train --workdir NEW --config ROOT/recipe.py:pretrain",
    "PROBE": "train --workdir NEW --config ROOT/recipe.py:probe",
    "TOKENIZER": "train --workdir NEW --config ROOT/recipe.py:tokenizer",
    "TRAIN": "train --workdir NEW --config ROOT/recipe.py:classify",
}
COMMANDS = {
    "EVALUATE": "evaluate --workdir RUN",
    "KNN": "knn --checkpoint RUN --workdir NEW",
    "PREFLIGHT": "preflight --config ROOT/recipe.py:classify",
    "PREDICT": "predict --checkpoint RUN --out NEW",
    "RECIPE": "train --workdir NEW --config",
}
# What is wrong: the command; below it its exit code, and what the sentence says. ROOT
# is the folder of `world`, RUN and TOKENS are runs in it, at NEW there is nothing.
ERRORS = r"""
# Places.
a store that there is not: RECIPE ROOT/recipe.py:classify --workdir=nowhere://bucket/run
  78 'nowhere://bucket/run' cannot be reached
a bucket to write to: EVALUATE --out=gs://bucket/out
  78 --out 'gs://bucket/out' must be a path on this machine; copy
# Keys.
a key: TRAIN optim.lrr=1
  78 'optim.lrr'; did you mean 'lr'
a section: TRAIN optm.lr=1
  78 'optm'; did you mean 'optim'
a key at the top: TRAIN stepz=1
  78 'stepz'; .* 'steps'
a key below a number: TRAIN steps.x=1
  78 below 'steps'
a moved key: TRAIN data.augment.min_scale=.5
  78 data.augment.min_scale is now data.frame.min_scale
a setting of a model: TRAIN model.dpeth=1
  78 'depth'
a setting of a task: TRAIN task.clases=4
  78 'classes'
a setting of a source: TRAIN data.source.sise=4
  78 'sise'; did you mean 'size'
a setting of augmentation: TRAIN data.augment.jiter=.4
  78 'data.augment.jiter'; did you mean 'jitter'
a key in a file: RECIPE ROOT/misspelt.json
  78 unknown key 'sed'; did you mean 'seed'
# Names.
a task: TRAIN task.name=clasify
  78 no 'clasify' in .*tasks
a network: TRAIN model.name=resnet
  78 no 'resnet' .* vit
a size: TRAIN model.variant=huge
  78 no 'huge' .* large
a preset: TRAIN model.preset=v2
  78 no 'v2' .* released
pixels: TRAIN model.pixels=bgr
  78 no 'bgr' .* imagenet
a source: TRAIN data.source.name=lmdb
  78 no 'lmdb' .* tfds
a frame: TRAIN data.frame.name=crop
  78 no 'crop' .* centre
a head: TRAIN task.head.name=mlp
  78 no 'mlp' .* linear
a pool: TRAIN task.pool=max
  78 pool='max' must be one of
a target: PRETRAIN task.target.name=edges
  78 no 'edges' .*pixels
a mask: PRETRAIN data.mask.name=grid
  78 no 'grid' .*random
an optimizer: TRAIN optim.name=adam
  78 no 'adam' .* adamw
a schedule: TRAIN optim.schedule.name=exp
  78 no 'exp' in optim.schedule; it has constant, cosine
a metric: TRAIN checkpoint.best=eval/top2
  78 best='eval/top2' is no metric .* did you mean 'eval/top
a dtype: TRAIN dtype=float16
  78 dtype='float16' must be
# Types.
no whole number: TRAIN steps=1e3
  1 steps=1e3: invalid lit
no number: TRAIN optim.lr=fast
  1 could not convert .*'fast'
a text for a number: RECIPE ROOT/typed.json
  78 steps='ten' must be of type int
a text for a section: TRAIN task.head=linear
  78 head='linear' must be of type section
a number for a text: TRAIN task.pool=3
  78 pool=3 must be of type str
# Values.
no step: TRAIN steps=0
  78 steps=0 must be at least 1
all labels smooth: TRAIN task.label_smoothing=2.
  78 label_smoothing=2.0 must be at least 0 and below 1
an average that stays: TRAIN optim.ema_decay=1.
  78 ema_decay=1.0 must be .* below 1 .1 would keep the first weights
eps: TRAIN optim.eps=-1
  78 eps=-1.0 must be above 0
b1: TRAIN optim.b1=1
  78 b1=1.0 must be .* below 1
b2: TRAIN optim.b2=0
  78 b2=0.0 must be above 0 and below
weight decay: TRAIN optim.weight_decay=1e10
  78 weight_decay=10000000000.0 must be in 0 .. 100
a rate that is no number: TRAIN optim.lr=nan
  78 optim.lr=nan must be at least 0
layer decay: TRAIN optim.layer_decay=0
  78 in 0.1 .. 1
layer scale: TRAIN model.layer_scale=-1.
  78 layer_scale=-1.0 must be at least 0
layer scale that is no number: TRAIN model.layer_scale=nan
  78 layer_scale='nan' must be of type float
a width of 0: TRAIN model.dim=0
  78 dim=0 must be at least 1
no heads: TRAIN model.heads=0
  78 heads=0 must be at least 1
no MLP: TRAIN model.mlp_ratio=0.
  78 =0.0 must be above 0
all paths dropped: TRAIN model.drop_path=1.
  78 and below 1
a moving average of codes: TOKENIZER model.decay=2.
  78 decay=2.0 must be in 0 .. 1
no codes: TOKENIZER model.vocab=0
  78 vocab=0 must be at le
a seed of a subset: TRAIN data.source={'name':'digits','subset_seed':-1}
  78 subset_seed=-1 must be in 0 ..
a crop of nothing: TRAIN data.eval_frame.crop_pct=0.
  78 crop_pct=0.0 must be above 0
jitter: TRAIN data.augment.jitter=2.
  78 jitter=2.0 must be
RandAugment: TRAIN data.augment.randaugment=rand-x
  78 randaugment='rand-x'
a mask's aspect: PRETRAIN data.mask.min_aspect=-1.
  78 min_aspect=-1.0 must be above 0
no checkpoint kept: TRAIN checkpoint.keep=0
  78 at least 1
a loss that is not finite: TRAIN optim.lr=1e39
  70 at step
# Sizes that do not go together.
heads and width: TRAIN model.heads=5
  78 of heads=5
image and patches: TRAIN model.image_size=33
  78 image_size=33 must be a multiple of patch_size=8, 32 for example
two sides: TRAIN model.image_size=32,33
  78 image_size=\(32, 33\) must be a multiple
batch and parts: TRAIN data.batch_size=7
  78 batch_size=7 must be a multiple of 2
devices: TRAIN mesh.data=3
  78 does not cover 1 devices
more masked than there is: PRETRAIN data.mask.max_patches=99
  78 max_patches=99 must be in 1..16
a token's size: TOKENIZER model.patch_size=6
  78 power of two
sizes: PRETRAIN task.target={'name':'tokens','checkpoint':'TOKENS'} model.patch_size=16
  78 gives 4x4 whole tokens .* but there are 2x2 patches
a warm-up: TRAIN optim.decay_steps=1 steps=6
  78 decay_steps=1 must be beyond the warm-up of 2
# Heads and classes.
one class: TRAIN task.classes=1
  78 classes=1 must be at lea
other classes: TRAIN task.classes=7
  78 classes=7, but .* 4
classes of the test: TRAIN data.eval_source.num_classes=3
  78 classes=4, but synthetic has 3
classes that it does not know: EVALUATE --data ROOT/classes
  78 none of the 4 classes .*: cat, dog
no class folders: EVALUATE --data ROOT/flat
  78 lie in no class folders, .* \(grating_0, .*; put them into folders
names in a file: EVALUATE --class_names @ROOT/none
  78 class_names=@ROOT/none must name a text file
# Checkpoints.
no run: evaluate --workdir ROOT/none
  78 there is no checkpoint
a run without a save: evaluate --workdir ROOT/nothing
  78 no checkpoint
a text for a checkpoint: evaluate --workdir ROOT/file
  78 ROOT/file cannot be read
no safetensors: evaluate --workdir ROOT/weights.safetensors
  78 weights.safetensors cannot be read: it is damaged
no PyTorch file: evaluate --workdir ROOT/weights.pth
  78 weights.pth cannot be read: it is none of .safetensors, .npz and
a default that is not there: TRAIN init_from=rnus/pretrain
  78 no checkpoint 'rnus/pretrain': .* hf:owner/name
no name on the hub: TRAIN init_from=hf:beit
  78 'hf:beit' must be hf:owner/name
weights of another size: TRAIN init_from=RUN model.dim=64
  78 RUN
weights of another task: TRAIN init_from=TOKENS
  78 TOKENS
parameters that nothing gives: TRAIN init_fresh=head
  78 init_fresh='head' .* init_from is empty
another run goes on: AGAIN optim.lr=1
  78 optim.lr=0.0015, this run has 1.0
no tokenizer: PRETRAIN task.target={'name':'tokens','checkpoint':'RUN'}
  78 is of task 'classify'; the target needs one of task 'tokenizer'
a probe of a tokenizer: PROBE task.checkpoint=TOKENS
  78 is of task 'tokenizer'; a probe needs
labels of a tokenizer: predict --checkpoint TOKENS --out NEW --images ROOT/flat
  78 is of task 'tokenizer', which gives tokens, .* not labels
neighbours of a tokenizer: knn --checkpoint TOKENS --workdir NEW
  78 no BEiT encoder
random weights of nothing: knn --checkpoint untrained --workdir NEW
  78 give --config
nothing to convert: convert ROOT/none NEW
  78 there is no checkpoint
a tokenizer for timm: convert TOKENS NEW.safetensors --to timm
  78 a vqvae is written as official, orbax, safetensors, not as 'timm'
# Data.
no data: TRAIN data.source={'name':'folder','path':'ROOT/none'}
  78 ROOT/none
no images: TRAIN data.source={'name':'folder','path':'ROOT/nothing'}
  78 no images at ROOT/nothing
images without classes: TRAIN data.source={'name':'folder','path':'ROOT/flat'}
  78 the task needs labels and flat has none; put
images beside folders: TRAIN data.source={'name':'folder','path':'ROOT/mixed'}
  78 beside and inside .* 'b.png'
no archive: TRAIN data.source={'name':'folder','path':'ROOT/photos.zip'}
  65 photos.zip
no list: TRAIN data.source={'name':'list','path':'ROOT/none.csv'}
  78 none.csv
a list without images: TRAIN data.source={'name':'list','path':'ROOT/rows.csv'}
  78 image
no part of the digits: TRAIN data.source={'name':'digits','split':'val'}
  78 no split 'val' of digits
an empty file: check_data --data ROOT/bad --out NEW
  65 b.png: the file is
# Paths.
no recipe: RECIPE ROOT/gone.py
  78 no file 'ROOT/gone.py'
a recipe's name: RECIPE digits_pretran
  78 no file 'digits_pretran': .*; did you mean 'digits_pretrain'
a recipe's file: RECIPE configs/digits_pretran.py
  78 did you mean 'digits_pretrain'
a recipe to be printed: recipes digits_pretran
  78 no recipe 'digits_pretran'; did you mean 'digits_pretrain'
a folder for a recipe: RECIPE ROOT
  78 no file
a recipe that is no Python: RECIPE ROOT/broken.py
  78 broken.py is no recipe in Python: .* line 1
a recipe that gives nothing: RECIPE ROOT/empty.py
  78 no function get_config
a recipe without a return: RECIPE ROOT/none.py
  78 get_config.arg. must return a config, not None
a variant: RECIPE configs/digits_probe.py:tny
  78 recipe argument 'tny' is unknown; it can be tiny
a variant of several: RECIPE beit_pretrain:plane
  78 recipe argument 'plane' is unknown; .* did you mean 'plain'
a module: RECIPE ROOT/modular.py
  78 there is no 'nobodys' on Python's path to import 'nobodys.head'
a module that is no name: RECIPE ROOT/modular.py:a-b
  78 'a-b' must be a module as one imports it
a module of somebody: RECIPE ROOT/modular.json
  78 modular.json names the module 'nobodys.head', which no recipe of yours
no JSON: RECIPE ROOT/broken.json
  78 is no JSON
a variant of data: RECIPE ROOT/misspelt.json:tiny
  78 misspelt.json is no recipe: nothing can follow it, not 'tiny'
a list for a config: RECIPE ROOT/list.json
  78 has no settings by name
a file for a folder: train --workdir ROOT/file --config ROOT/recipe.py:classify
  74 ROOT/file: File exists
a folder below a file: train --workdir ROOT/file/run --config ROOT/recipe.py:classify
  74 ROOT/file.*: Not a directory
findings below a file: predict --checkpoint RUN --images ROOT/flat --out ROOT/file/out
  74 ROOT/file/out: Not a directory
# Commands.
no config: train --workdir NEW
  1 config must have a value
no flags: train
  1 config must have a value .*; flag --workdir=None
flags in the wrong order: train --config.steps=1 --config ROOT/recipe.py --workdir NEW
  1 before a value for --config
a flag: EVALUATE --worksir=x
  1 Did you mean: workdir
a command: __main__ trian --workdir NEW
  1 no command 'trian'; did you mean 'train'
the first part of a key: TRAIN steps=1 --confg.optim.lr=1
  1 'confg.optim.lr'; did you mean 'config'
a key without a recipe: train --workdir NEW --config.steps=1
  1 'config.steps': name its recipe first, by --config
a shell: completion tcsh
  1 it takes SHELL, one of bash, zsh, not
too many words: convert ROOT/a NEW c
  1 it takes SOURCE TARGET, not
no image: PREDICT
  78 no images: no path is given
an image that is not there: PREDICT --images ROOT/none.png
  78 no file, folder or archive 'ROOT/none.png'
what to predict: PREDICT --what boxes
  78 no 'boxes' in --what
a patch: PREDICT --what attention --patch 9,9 --images ROOT/flat
  78 no patch in row 9, column 9: there are 4x4
a named evaluation: EVALUATE --evals v2
  78 no 'v2' in the evals
no neighbours: KNN --k 0
  78 k=0 must be in 1..20
a block: KNN --block 9
  78 no block 9: blocks are 0..1
data and a recipe: check_data --out NEW
  78 give --data .* or --config
curves of nothing: curves ROOT/nothing --out NEW.png
  78 no metrics in
a curve: curves RUN --metric train/los --out NEW.png
  78 did you mean 'train/loss'
a step that did not fail: replay --workdir RUN
  78 no failed_step_N.json
a place to run: PREFLIGHT --on v9:2x2
  78 no 'v9' in beit_jax.ahead.targets; it has a100, .* v6e
how many devices: PREFLIGHT --on v5e
  78 must say how many: v5e:4x8
data to be counted: preflight --config configs/beit_pretrain.py --on cpu:8
  78 imagenet2012.* --examples
a size to convert to: convert RUN NEW --image_size 32,x
  78 image_size=32,x must be pixels
"""


def rows(table: str) -> dict[str, tuple[list[str], int, str]]:
    """What is wrong -> (words of the command, exit code, regular expression)."""
    found = {}
    lines = [line for line in table.splitlines() if line and line[0] != "#"]
    for above, below in zip(lines[::2], lines[1::2], strict=True):
        what, command = above.split(": ", 1)
        first, *flags = command.split(" ")
        if first in TRAINING:
            flags = [f if f.startswith("--") else f"--config.{f}" for f in flags]
        start = (TRAINING | COMMANDS).get(first, first).split(" ")
        code, sentence = below.split(maxsplit=1)
        assert what not in found, f"there are two {what!r}"
        found[what] = [*start, *flags], int(code), sentence
    return found


# These have begun before they know, and say what they found.
LEAVES = {"a loss that is not finite", "an empty file"}


@pytest.mark.parametrize(
    "what, command, code, sentence",
    [pytest.param(what, *row, id=what) for what, row in rows(ERRORS).items()],
)
def test_a_mistake_is_told_in_a_sentence(
    what, command, code, sentence, world, tmp_path, capsys
):
    places = {"RUN": f"{world}/runs/classify", "TOKENS": f"{world}/runs/tokenizer"}
    places |= {"ROOT": str(world), "NEW": str(tmp_path / "new")}

    def placed(text: str) -> str:
        for word, path in places.items():
            text = text.replace(word, path)
        return text

    before = files(world)
    got = run(*map(placed, command))
    out, err = capsys.readouterr()
    told = f"{out}\n{err}"
    assert got == code, told
    assert re.search(placed(sentence), told, re.DOTALL), told
    assert "Traceback" not in told
    if code > 1 and what not in LEAVES:
        assert [line for line in err.splitlines() if line.startswith("error: ")], told
    assert files(world) == before
    assert what in LEAVES or not [*tmp_path.iterdir()], "it left something behind"


def test_the_table_has_what_it_should():
    assert len(rows(ERRORS)) >= 100
    assert {code for _, code, _ in rows(ERRORS).values()} == {1, 65, 70, 74, 78}


def test_a_config_of_a_run_is_taken_without_running_anything(world, tmp_path, capsys):
    """Also one that an earlier version wrote, and to evaluate with."""
    saved = json.loads((world / "runs" / "classify" / "config.json").read_text())
    saved["data"]["augment"]["crop_pct"] = saved["data"]["eval_frame"].pop("crop_pct")
    (tmp_path / "config.json").write_text(json.dumps(saved))
    given = ("--config", f"{tmp_path}/config.json")
    assert run("train", *given, "--workdir", f"{tmp_path}/run") == 0
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
