"""Linear classifiers on every block of the frozen, pre-trained encoder of digits.

python -m beit_jax.train --config configs/digits_probe.py --workdir runs/probe
The control, random features: add --config.task.checkpoint=untrained
Source: `beit/run_linear_eval.py` of the official code, and MAE's batch normalisation.
Result: 69.3 % top-1 (blocks 64.5, 66.5, 68.8, 69.3), of random features 45.8 %.
"""

from beit_jax import config as c


def get_config(arg: str = ""):
    config = c.new(
        steps=300,
        task={
            "name": "probe",
            "checkpoint": "runs/pretrain",
            "classes": 10,
            "norm": "batch",  # without, the small features would need many more steps
        },
        model={
            "image_size": 32,
            "patch_size": 8,
            "dim": 96,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "shared",
            "layer_scale": 0.1,
        },
        data={
            "batch_size": 128,
            "source": {"name": "digits", "split": "train"},
            "eval_source": {"name": "digits", "split": "test"},
            "frame": {"name": "random_resized", "min_scale": 0.7},
            "augment": {"flip": False},
        },
        optim={"lr": 5e-2, "min_lr": 0.0, "weight_decay": 1e-4, "clip_norm": 0.0},
        log={"every_steps": 100},
    )
    return c.smaller(config, task__checkpoint="untrained") if c.is_tiny(arg) else config
