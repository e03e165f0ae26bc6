"""VQ-VAE on CIFAR-10 at 32 px: 4x4 visual tokens of 8x8 pixels, vocabulary 512.

python -m beit_jax.train --config configs/cifar10_tokenizer.py \
    --workdir runs/cifar10/tokenizer
Images are expected in data/cifar10_{train,test}.tar.gz, class folders in an archive;
point --config.data.source.path and --config.data.eval_source.path elsewhere. Every
tenth training image is left for validation, here and in the recipes that follow.
Source: VQ-VAE with EMA codebook (arXiv:1711.00937), sized for minutes on two cores.
Larger, 8x8 tokens of 4x4 pixels, for a GPU: `…_tokenizer.py:large` (not run yet)
Result: PSNR 20.1 dB on the test split, all 512 codes in use, perplexity 457.
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/cifar10_train.tar.gz"}
TEST = {"name": "folder", "path": "data/cifar10_test.tar.gz"}
VARIANTS = {
    "large": {"model__patch_size": 4, "steps": 15000, "optim__warmup_steps": 1000}
}


def get_config(arg: str = ""):
    config = c.new(
        steps=1500,
        task={"name": "tokenizer"},
        model={
            "name": "vqvae",
            "image_size": 32,
            "patch_size": 8,
            "vocab": 512,
            "code_dim": 32,
            "width": 128,
            "res_blocks": 2,
            "restart_below": 0.25,
        },
        data={
            "batch_size": 128,
            "source": IMAGES | {"part": "train"},
            "eval_source": TEST,
            "frame": {"name": "random_resized", "min_scale": 0.35},
        },
        optim={"lr": 2e-3, "warmup_steps": 100, "weight_decay": 1e-4},
        log={"every_steps": 100},
    )
    tiny = c.choose(config, arg, VARIANTS)
    return c.smaller(c.synthetic(config)) if tiny else config
