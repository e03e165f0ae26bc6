"""VQ-KD, the tokenizer of BEiT v2: 14x14 tokens of a vocabulary of 8192 at 224 px.

python -m beit_jax.train --config configs/beit2_tokenizer.py --workdir runs/vqkd
The teacher is CLIP's B/16 image tower. It may be any encoder of a run or a file, whose
features' width goes into model.teacher_dim.
Names go behind the file's. `dino`: with DINO's B/16 as teacher. `decoder1`: one block
from codes to features, not three. `pixels`: with a decoder of pixels beside it, to look
at tokens. `paint`: that decoder alone, for the tokens of runs/vqkd (or a published
file), which stay as they are.
Source: `beit2/TOKENIZER.md` and `run_vqkd_training.py` of the official code.
Published, codes in use: none 97 %, `decoder1` 100 %, `dino` 100 %.
Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
VARIANTS = {
    "dino": {
        "task__objective__teacher__checkpoint": "hf:facebook/dino-vitb16",
        "model__teacher_dim": 768,
    },
    "decoder1": {"model__teacher_blocks": 1},
    "pixels": {"model__pixel_blocks": 4},
    "paint": {
        "init_from": "runs/vqkd",
        "epochs": 10.0,
        "task__objective__teacher": {},
        "model__pixel_blocks": 4,
        "model__decay": 1.0,
        "optim__train": "decoder,to_pixels",
    },
}


def get_config(arg: str = ""):
    clip = {"name": "encoder", "checkpoint": "hf:openai/clip-vit-base-patch16"}
    clip |= {"dtype": "bfloat16"}
    config = c.new(
        epochs=100.0,
        dtype="bfloat16",
        task={
            "name": "tokenizer",
            "objective": {"name": "distillation", "teacher": clip},
        },
        model={"name": "vqkd", "image_size": 224, "teacher_dim": 512, "pixels": "half"},
        data={
            "batch_size": 512,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
        },
        optim={
            "lr": 2e-4,
            "warmup_epochs": 10.0,
            "weight_decay": 1e-4,
            "b2": 0.99,
            "clip_norm": 0.0,
        },
    )
    if c.choose(config, arg, VARIANTS):
        changes = {"model__image_size": 32, "init_from": ""}
        config = c.synthetic(c.smaller(config, **changes))
        small = {"patch_size": 8, "dim": 32, "depth": 2, "heads": 2}
        config.model.update(small | {"decoder_dim": 32, "decoder_heads": 2})
        config.model.update({"vocab": 32, "code_dim": 8, "teacher_dim": 32})
        untrained = {"checkpoint": "untrained", "untrained": small}
        if config.task.objective.teacher:
            config.task.objective.teacher.update(untrained)
    return config
