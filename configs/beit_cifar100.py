"""Fine-tuning the plain Base network on CIFAR-100, enlarged to 224 px.

python -m beit_jax.train --config configs/beit_cifar100.py --workdir runs/beit_cifar100
Starts from beit_pretrain.py:plain; `intermediate`: from beit_finetune.py:plain.
Source: the paper's appendix H; its lr is to be swept over 2e-3, 3e-3, 4e-3, 5e-3.
Published, % top-1: 90.1, `intermediate` 91.8. Result: not run here.
"""

from beit_jax import config as c

IMAGES = {"name": "tfds", "dataset": "cifar100"}
VARIANTS = {  # the head of ImageNet-1k has other classes
    "intermediate": {"init_from": "runs/beit_base_plain_in1k", "init_fresh": "head"}
}


def get_config(arg: str = ""):
    config = c.new(
        epochs=150.0,
        dtype="bfloat16",
        init_from="runs/beit_base_plain",
        task={"name": "classify", "classes": 100},
        model={
            "image_size": 224,
            "variant": "base",
            "preset": "paper_plain",
            "drop_path": 0.1,
            "pixels": "imagenet",
        },
        data={
            "batch_size": 512,
            "source": IMAGES | {"split": "train"},
            "eval_source": IMAGES | {"split": "test"},
            "eval_frame": {"name": "centre", "crop_pct": 224 / 256},
            "augment": {
                "randaugment": "rand-m9-mstd0.5-inc1",
                "fill": (124, 116, 104),
                "mixup": 0.8,
                "cutmix": 1.0,
                "repeats": 3,
            },
        },
        optim={
            "lr": 4e-3,
            "min_lr": 1e-6,
            "warmup_epochs": 20.0,
            "layer_decay": 0.65,
            "weight_decay": 0.3,
            "clip_norm": 0.0,
        },
        checkpoint={"best": "eval/top1"},
    )
    if c.choose(config, arg, VARIANTS):
        changes = c.SMALL_ENCODER | {"init_from": "", "task__classes": 4}
        config = c.synthetic(c.smaller(config, **changes))
    return config
