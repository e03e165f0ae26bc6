"""Linear classifiers on every block of the frozen encoder of cifar10_pretrain.

python -m beit_jax.train --config configs/cifar10_probe.py --workdir runs/cifar10/probe
Another encoder: --config.task.checkpoint=RUN ; random weights: untrained,
those of a larger network: `…_probe.py:large`.
Where the images are to lie: see cifar10_tokenizer.py.
Source: `beit/run_linear_eval.py` of the official code, its learning rate and decay.
Result: see docs/experiment.md.
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/cifar10_train.tar.gz"}
TEST = {"name": "folder", "path": "data/cifar10_test.tar.gz"}
VARIANTS = {
    "large": {
        "model__patch_size": 4,
        "model__dim": 384,
        "model__depth": 12,
        "model__heads": 6,
        "steps": 4000,
    }
}


def get_config(arg: str = ""):
    config = c.new(
        steps=400,
        task={"name": "probe", "checkpoint": "runs/cifar10/pretrain", "classes": 10},
        model={
            "image_size": 32,
            "patch_size": 8,
            "dim": 96,
            "depth": 4,
            "heads": 3,
        },
        data={
            "batch_size": 256,
            "source": IMAGES | {"part": "train"},
            "eval_source": TEST,
            "frame": {"name": "random_resized", "min_scale": 0.35},
        },
        optim={"lr": 4e-3, "min_lr": 0.0, "weight_decay": 1e-4, "clip_norm": 0.0},
        log={"every_steps": 50},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.smaller(c.synthetic(config), task__checkpoint="untrained")
    return config
