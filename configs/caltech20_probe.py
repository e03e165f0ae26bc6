"""Linear classifiers on every block of the frozen encoder of caltech20_pretrain.

python -m beit_jax.train --config configs/caltech20_probe.py \
    --workdir runs/caltech20/probe
Another encoder: --config.task.checkpoint=RUN ; random weights: untrained.
Where the images are to lie: see caltech20_tokenizer.py.
Source: `beit/run_linear_eval.py` of the official code, its learning rate and decay.
Result: see docs/experiment.md.
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/caltech20a.tar"}


def get_config(arg: str = ""):
    config = c.new(
        steps=400,
        task={"name": "probe", "checkpoint": "runs/caltech20/pretrain", "classes": 20},
        model={
            "image_size": 96,
            "patch_size": 16,
            "dim": 96,
            "depth": 4,
            "heads": 3,
        },
        data={
            "batch_size": 64,
            "source": IMAGES | {"split": "train", "part": "train"},
            "eval_source": IMAGES | {"split": "val"},
            "frame": {"name": "random_resized", "min_scale": 0.2},
            "eval_frame": {"name": "centre", "crop_pct": 224 / 256},
            "decoded_cache_gib": 1.0,
        },
        optim={"lr": 4e-3, "min_lr": 0.0, "weight_decay": 1e-4, "clip_norm": 0.0},
        log={"every_steps": 50},
    )
    if c.is_tiny(arg):
        config = c.smaller(c.synthetic(config), task__checkpoint="untrained")
    return config
