"""What a recipe may say: every key with its default, and its checks.

A recipe is `get_config(arg)` in a file of `configs/`. It calls `new` with what differs
from the defaults below. The sections in OPEN are open here: what they take depends on
their `name` and is checked where they are used, before any work.
"""

import json
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from beit_jax import modules, shipped
from beit_jax.durations import Plan as Plan
from beit_jax.lookup import has_type, nearest
from beit_jax.moved import moved, tuples
from beit_jax.moved import upgraded as upgraded
from beit_jax.ranges import RANGES
from beit_jax.variants import SMALL_ENCODER as SMALL_ENCODER
from beit_jax.variants import SMALL_SEGMENTER as SMALL_SEGMENTER
from beit_jax.variants import change as change
from beit_jax.variants import choose as choose
from beit_jax.variants import is_tiny as is_tiny
from beit_jax.variants import smaller as smaller
from beit_jax.variants import synthetic as synthetic

OPEN = ("task", "model", "data.source", "data.eval_source", "data.mask", "evals")
OPEN += ("data.frame", "data.eval_frame", "optim.schedule", "optim.groups")
DTYPES = ("float32", "bfloat16")


def defaults() -> ConfigDict:
    """Every key of a run with its default value."""
    return ConfigDict(
        {
            "seed": 0,  # of weights, order, views, masks and drop path
            "steps": config_dict.placeholder(int),  # when set, wins over epochs
            "epochs": config_dict.placeholder(float),  # passes over data.source
            "dtype": "float32",  # of the computation; parameters stay float32
            "init_from": "",  # a checkpoint to start from; empty: fresh
            "init_fresh": "",  # parameters it does not give: path prefixes, "a,b/c"
            "modules": (),  # of your own, to import: ("my_package.my_head",)
            "task": {},  # what is trained: name and settings
            "model": {},  # the network: perhaps a name, and settings
            "data": {
                "batch_size": 128,  # of all devices and accumulation steps together
                "source": {},  # of training: name and settings
                "eval_source": {},  # of evaluation; empty: none
                "mask": {},  # what pre-training hides: name and settings
                "frame": {  # what a view shows; explained in beit_jax/data/frames.py
                    "name": "random_resized",
                    "min_scale": 0.08,
                    "max_scale": 1.0,
                    "min_ratio": 3 / 4,
                    "max_ratio": 4 / 3,
                },
                "eval_frame": {"name": "centre", "crop_pct": 1.0},  # of evaluation
                "augment": {  # explained in beit_jax/data/settings.py
                    "flip": True,
                    "interpolation": "bicubic",
                    "token_interpolation": "lanczos",
                    "token_view": "image",
                    "jitter": 0.0,
                    "jitter_on": "image",
                    "randaugment": "",
                    "trivialaugment": False,
                    "augmix": 0,
                    "three_augment": False,
                    "photometric": False,
                    "rotate": 0.0,
                    "fill": (128, 128, 128),
                    "erase": 0.0,
                    "mixup": 0.0,
                    "cutmix": 0.0,
                    "repeats": 1,
                },
                "on_bad": "error",  # or "skip": an example that cannot be used
                "max_bad": 0.001,  # share of the examples that may be skipped
                "max_pixels": 2**26,  # of an image; what claims more is bad
                "apply_exif": False,  # turn images as EXIF says; the official code: no
                "dct_scaled": False,  # decode large JPEGs at 1/2, 1/4 or 1/8: faster
                "decoded_cache_gib": 0.0,  # keep decoded images in so much memory
                "eval_cache": "",  # folder for evaluation's finished batches
            },
            "optim": {
                "name": "adamw",  # or another of beit_jax/optim/optimizers.py
                "lr": 1.5e-3,  # at its peak, for the batch as it is: nothing scales it
                "min_lr": 1e-5,  # where the schedule ends
                "schedule": {"name": "cosine"},  # see beit_jax/optim/schedules.py
                "warmup_lr": 0.0,  # of the first step
                "warmup_steps": config_dict.placeholder(int),  # of rising to lr
                "warmup_epochs": 0.0,  # used when warmup_steps is not set
                # when lr has come down to min_lr, to stay there; not set: at the end
                "decay_steps": config_dict.placeholder(int),
                "weight_decay": 0.05,  # not of biases, norms, layer scale, [CLS]
                # where a cosine takes it by the end of the run; not set: constant
                "weight_decay_end": config_dict.placeholder(float),
                "b1": 0.9,  # decay of the average of gradients
                "b2": 0.999,  # and of that of their squares
                "eps": 1e-8,  # added to the root of the squares
                "momentum": 0.9,  # of sgd, lars and muon
                "clip_norm": 3.0,  # of all gradients together; 0: off
                "layer_decay": 1.0,  # factor on lr from each layer to the one below it
                "accumulate": 1,  # parts that a batch is cut into, to save memory
                # steps in a row that may be left out, not being finite; 0: none
                "max_left_out": 0,
                "ema_decay": 0.0,  # 0: no average of the weights
                # where a cosine takes it by the end of the run; not set: constant
                "ema_decay_end": config_dict.placeholder(float),
                "train": "",  # what alone trains: patterns, see optim/layers.py
                "freeze": "",  # parameters that do not train: path prefixes, "a,b/c"
                "freeze_blocks": 0,  # nor do so many first blocks and the embeddings
                # settings of some parameters: {NAME: {"prefix": "a,b/c", "lr": ...}}
                "groups": {},
            },
            "mesh": {
                "data": -1,  # devices that share the batch; -1: all that are left
                "fsdp": 1,  # devices that share batch and parameters
                "tensor": 1,  # devices that share the width of layers
            },
            "log": {
                "every_steps": 20,  # between two reports of metrics; 0: none
                "writers": (),  # "wandb", "mlflow": told what TensorBoard is
                # without a step, an evaluation's batch or an end: the run hangs and is
                # ended; 0: never
                "watchdog_minutes": 30.0,
            },
            "eval": {
                "every_steps": 0,  # 0: at the end only
                "pictures": 8,  # of a kind; 0: no charts either
            },
            "evals": {},  # more of them: {NAME: {"source": ..., "every_steps": ...}}
            "early_stop": {
                "metric": "",  # "eval/top1" say; empty: never
                "patience": 5,  # evaluations in a row that are no better
                "min_delta": 0.0,  # better is by more than this
                "mode": "max",  # or "min": which of its values is best
            },
            "checkpoint": {
                "every_steps": 500,  # between two saves; 0: at the end only
                "keep": 2,  # the newest K: should one be damaged, the other serves
                "best": "",  # and the best by this metric, "eval/top1" say
                "best_mode": "max",  # or "min": which of its values is best
            },
        }
    )


def new(**sections: Any) -> ConfigDict:
    """The defaults, changed by `sections`; raises ValueError as `check` does."""
    config = ConfigDict(sections, convert_dict=True)
    check(config, whole=False)
    result = defaults()
    for name in OPEN:  # filled as they are: their keys are not known here
        section = _get(config, name)
        if section is not None:
            parent, _, key = name.rpartition(".")
            default = _get(result, name)
            if section.get("name", default.get("name")) == default.get("name"):
                for setting, value in default.items():
                    if setting not in section:
                        section[setting] = value
            _get(result, parent)[key] = section
    result.update(config)
    if result.model and "pixels" not in result.model:
        result.model.pixels = "half"  # written down, so that checkpoints tell it
    return result


def check(config: ConfigDict, whole: bool = True) -> None:
    """Holds every key of `config` against the defaults.

    Args:
      config: a whole run's config, or with `whole=False` only some of its keys.

    Raises:
      ValueError: an unknown key, a value of another type than its default's or out of
        its range, a missing key.
    """
    problems = list(_problems(config, defaults(), "", whole))
    if problems:
        raise ValueError("config: " + "; ".join(problems))
    if whole and config.steps is None and config.epochs is None:
        raise ValueError("config: set steps or epochs")
    for path, limits in RANGES.items():
        value = _get(config, path)
        if value is not None and value not in limits:
            raise ValueError(f"config: {path}={value} must be {limits}")
    if config.get("dtype", "float32") not in DTYPES:
        raise ValueError(f"config: dtype={config.dtype!r} must be one of {DTYPES}")


def _problems(have: Mapping, want: ConfigDict, prefix: str, whole: bool):
    for key in have:
        path = prefix + key
        if key not in want:
            yield moved(path) or f"unknown key {path!r}{nearest(key, want)}"
            continue
        value, default = have.get(key), want.get(key)
        wanted = want.get_type(key)
        if isinstance(default, ConfigDict):
            if not isinstance(value, (ConfigDict, Mapping)):
                yield f"{path}={value!r} must be a section of keys"
            elif path not in OPEN:
                yield from _problems(value, default, path + ".", whole)
        elif not (value is None and default is None or has_type(value, wanted)):
            yield f"{path}={value!r} must be of type {wanted.__name__}"
    if whole:
        yield from (f"missing key {prefix + key!r}" for key in want if key not in have)


def _get(config: ConfigDict, path: str) -> Any:
    for key in path.split(".") if path else ():
        config = config.get(key) if config is not None else None
    return config


def load(file: str | pathlib.Path, *arg: str) -> ConfigDict:
    """The recipe FILE[:ARG], which is run, or the config.json of a run, which is not.

    A recipe that comes with beit_jax has a name, too: see shipped.py.

    Raises:
      ValueError: there is none, or it cannot be read.
    """
    path = shipped.find(file)
    if path is None:
        near = nearest(pathlib.Path(file).stem, shipped.names())
        raise ValueError(
            f"there is no file {str(file)!r}: a config is a recipe, NAME or "
            "FILE[:ARG], see configs/ or `beit recipes`, or the config.json in the "
            f"work directory of a run{near}"
        )
    if path.suffix == ".json":
        if arg:
            raise ValueError(
                f"{path} is no recipe: nothing can follow it, not {arg[0]!r}"
            )
        config = from_dict(_plain(path))
        if refused := modules.recall(config.modules, str(path)):
            raise ValueError("; ".join(refused))
        return config
    try:
        recipe = runpy.run_path(str(path), run_name="recipe")
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no recipe in Python: {error}") from error
    if "get_config" not in recipe:
        raise ValueError(f"{path} is no recipe: it has no function get_config(arg)")
    config = recipe["get_config"](*arg)
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{path}: get_config(arg) must return a config, not {config}")
    modules.use(config.get("modules", ()))
    return config


def _plain(path: pathlib.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} has no settings by name, as a config.json has")
    return values


def save(config: ConfigDict, path: pathlib.Path) -> None:
    path.write_text(config.to_json(indent=2) + "\n", encoding="utf-8")


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """A config from plain data, as a checkpoint carries it; lists become tuples.

    One that an earlier version saved is brought up, see `upgraded`.
    """
    config = new(**tuples(upgraded(values)))
    check(config)
    return config
