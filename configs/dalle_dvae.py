"""DALL-E's discrete VAE, whole: 32x32 visual tokens of 8x8 px, vocabulary 8192.

python -m beit_jax.train --config configs/dalle_dvae.py --workdir runs/dalle
`--config.data.source.path=DIR`: any folder or archive of photographs will do.
Source: DALL-E (arXiv:2102.12092), appendix A.2, with its data augmentation; the
objective's defaults are its schedules. It was trained in float16 on 250 million images.
Result: not run here; one step of BEiT-B on its tokens is in docs/networks.md.
"""

from beit_jax import config as c


def get_config(arg: str = ""):
    config = c.new(
        steps=3_000_000,
        dtype="bfloat16",
        task={"name": "tokenizer"},
        model={"name": "dvae", "image_size": 256, "pixels": "dalle"},
        data={
            "batch_size": 512,
            "source": {"name": "folder", "path": "data/photographs"},
            "frame": {"name": "square"},
            "augment": {"interpolation": "area"},
        },
        optim={
            "lr": 1e-4,
            "min_lr": 1.25e-6,
            "decay_steps": 1_200_000,
            "weight_decay": 1e-4,
            "clip_norm": 0.0,
            "ema_decay": 0.999,
        },
    )
    if c.is_tiny(arg):
        config = c.smaller(c.synthetic(config), model__image_size=32)
        config.model.update({"vocab": 32, "n_hid": 8, "blocks_per_group": 1})
    return config
