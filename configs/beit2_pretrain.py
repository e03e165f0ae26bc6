"""BEiT v2's pre-training at 224 px, Base or Large.

python -m beit_jax.train --config configs/beit2_pretrain.py --workdir runs/beit2_base
Names go behind the file's, as far as they agree. Without any: Base on ImageNet-1k for
1600 epochs. The tokenizer is that of beit2_tokenizer.py in runs/vqkd.
`unshared`: the second prediction has a norm and a layer of its own.
Source: `beit2/PRETRAINING.md` and `run_beitv2_pretraining.py`; arXiv:2208.06366.
Published, % top-1 of ImageNet-1k after fine-tuning (beit_finetune.py:v2):
              none    300ep
Base          85.5    85.0
`large`       87.3    86.6
Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
VARIANTS = {
    "large": {"model__variant": "large", "task__head__early": 21},
    "300ep": {"epochs": 300.0, "optim__b2": 0.98, "model__drop_path": 0.0},
    "unshared": {"task__head__shared": False},
}


def get_config(arg: str = ""):
    config = c.new(
        epochs=1600.0,
        dtype="bfloat16",
        task={
            "name": "pretrain",
            "target": {"name": "tokens", "checkpoint": "runs/vqkd"},
            "head": {"name": "aggregation", "early": 9, "layers": 2},
        },
        model={
            "image_size": 224,
            "variant": "base",
            "preset": "released",
            "drop_path": 0.1,
            "pixels": "imagenet",
        },
        data={
            "batch_size": 2048,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
            "frame": {"name": "random_resized", "min_scale": 0.2},
            "augment": {"jitter": 0.4, "token_interpolation": "bicubic"},
            "mask": {"name": "blockwise", "max_patches": 75, "exact": True},
        },
        optim={"lr": 1.5e-3, "warmup_epochs": 10.0},
    )
    if c.choose(config, arg, VARIANTS):
        changes = c.SMALL_ENCODER | {"data__mask__max_patches": 6}
        changes["task__head__early"] = 1
        config = c.synthetic(c.smaller(config, **changes))
        config.task.target = {"name": "tokens", "checkpoint": "untrained"}
    return config
