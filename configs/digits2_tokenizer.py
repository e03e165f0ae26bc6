"""VQ-KD on handwritten digits: tokens of what the encoder of digits_pretrain.py says.

python -m beit_jax.train --config configs/digits2_tokenizer.py --workdir runs/vqkd
Source: BEiT v2's tokenizer (arXiv:2208.06366), sized for a minute on two cores, with a
decoder of pixels beside it.
Result: on the test split 0.065 from the teacher (1 - cosine), all 64 codes in use, as
evenly as 50.9 of them; PSNR 18.7 dB.
"""

from beit_jax import config as c


def get_config(arg: str = ""):
    teacher = {"name": "encoder", "checkpoint": "runs/pretrain"}
    config = c.new(
        steps=300,
        task={
            "name": "tokenizer",
            "objective": {"name": "distillation", "teacher": teacher},
        },
        model={
            "name": "vqkd",
            "image_size": 32,
            "patch_size": 8,
            "vocab": 64,
            "code_dim": 16,
            "teacher_dim": 96,
            "dim": 96,
            "depth": 4,
            "heads": 4,
            "teacher_blocks": 1,
            "decoder_dim": 96,
            "decoder_heads": 4,
            "pixel_blocks": 1,
            # A short run: codes must follow faster than by default.
            "decay": 0.95,
        },
        data={
            "batch_size": 128,
            "source": {"name": "digits", "split": "train"},
            "eval_source": {"name": "digits", "split": "test"},
            "frame": {"name": "random_resized", "min_scale": 0.8},
            "augment": {"flip": False},
        },
        optim={"lr": 1e-3, "warmup_steps": 40, "weight_decay": 1e-4, "b2": 0.99},
        log={"every_steps": 50},
        checkpoint={"every_steps": 100},
    )
    if c.is_tiny(arg):
        shape = {"patch_size": 8, "dim": 96, "depth": 1, "heads": 4}
        untrained = {"checkpoint": "untrained", "untrained": shape}
        config = c.smaller(config)
        config.task.objective.teacher.update(untrained)
    return config
