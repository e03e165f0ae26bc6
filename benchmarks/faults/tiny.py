"""A run of seconds for the campaigns: 20 steps are three epochs and a bit.

An epoch ends within a batch, weights are averaged, and there are evaluations of three
batches, one on the way and one at the end.
"""

from beit_jax import config as c

STEPS = 20


def get_config(folder=""):
    """On the images of a folder with four classes, of which some are bad, if given."""
    source = {"name": "synthetic", "num_examples": 52}
    test = {"name": "synthetic", "num_examples": 20, "seed": 1}
    if folder:
        source = test = {"name": "folder", "path": folder}
    encoder = {"image_size": 32, "patch_size": 8, "dim": 32, "depth": 2, "heads": 4}
    config = c.new(
        task={"name": "classify", "classes": 4},
        model=encoder | {"rel_pos_bias": "per_block"},
        data={
            "source": source,
            "eval_source": test,
            "on_bad": "skip",
            "max_bad": 0.1,
        },
        optim={"ema_decay": 0.5},
    )
    return c.smaller(
        config, steps=STEPS, checkpoint__every_steps=4, eval__every_steps=12
    )
