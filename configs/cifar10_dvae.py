"""DALL-E's discrete VAE, small, on CIFAR-10 at 32 px: 8x8 tokens, vocabulary 512.

python -m beit_jax.train --config configs/cifar10_dvae.py --workdir runs/cifar10/dvae
Where the images are to lie: see cifar10_tokenizer.py.
Source: DALL-E (arXiv:2102.12092), section 2.1 and appendix A.2: logit-Laplace
likelihood, annealed temperature and KL weight, averaged weights; the schedules are cut
to minutes on two cores.
Result: PSNR 20.0 dB on the test split, 30 % of the 512 codes in use, perplexity 68.
"""

from beit_jax import config as c


def get_config(arg: str = ""):
    config = c.new(
        steps=1500,
        task={
            "name": "tokenizer",
            "objective": {
                "temperature_steps": 900,
                # 6.6 is for tokens of 192 numbers; for these of 48 it leaves the
                # posterior near uniform (KL of 0.8 nats, 17 dB).
                "kl_weight": 1.0,
                "kl_steps": 200,
            },
        },
        model={
            "name": "dvae",
            "image_size": 32,
            "patch_size": 4,
            "vocab": 512,
            "n_hid": 32,
            "n_init": 64,
            "pixels": "dalle",
        },
        data={
            "batch_size": 64,
            "source": {"name": "folder", "path": "data/cifar10_train.tar.gz"},
            "eval_source": {"name": "folder", "path": "data/cifar10_test.tar.gz"},
            "frame": {"name": "random_resized", "min_scale": 0.35},
        },
        optim={
            "lr": 2e-3,
            "min_lr": 2.5e-5,
            "warmup_steps": 50,
            "weight_decay": 1e-4,
            "clip_norm": 0.0,
            "ema_decay": 0.99,
        },
        log={"every_steps": 100},
    )
    if c.is_tiny(arg):
        config = c.smaller(c.synthetic(config))
        config.model.update({"vocab": 32, "n_hid": 8, "blocks_per_group": 1})
    return config
