"""Runs of seconds for the tests: a config a task, and what a run left behind."""

import hashlib
import json
import pathlib

import numpy as np
import orbax.checkpoint as ocp

from beit_jax import config as c
from beit_jax.checkpoints.names import flatten

ENCODER = {
    "image_size": 32,
    "patch_size": 8,
    "dim": 32,
    "depth": 2,
    "heads": 4,
    "drop_path": 0.2,
    "unroll": 1,  # compiles in half the time
}
VQVAE = {"vocab": 32, "code_dim": 8, "width": 16, "res_blocks": 1}
DVAE = {"vocab": 32, "n_hid": 8, "n_init": 8, "blocks_per_group": 1}
DISCRETE_VAE = {"vocab": 32, "hidden": 8, "code_dim": 8}
VQKD = {"vocab": 32, "code_dim": 8, "dim": 16, "depth": 1, "heads": 2}
VQKD |= {"teacher_dim": 16, "teacher_blocks": 1, "decoder_dim": 16}
VQKD |= {"decoder_heads": 2, "pixel_blocks": 1}
TEACHER = {  # for it
    "name": "encoder",
    "checkpoint": "untrained",
    "untrained": {"patch_size": 8, "dim": 16, "depth": 1, "heads": 2},
}
TARGETS = ("width", "light")  # numbers that the synthetic images have
TASKS = {
    "tokenizer": {
        "task": {"name": "tokenizer"},
        "model": {
            "name": "vqvae",
            "image_size": 32,
            "patch_size": 8,
            "restart_below": 0.5,  # so that dead codes do come back in a few steps
            **VQVAE,
        },
    },
    "pretrain": {
        "task": {
            "name": "pretrain",
            "target": {"name": "tokens", "checkpoint": "untrained", "untrained": VQVAE},
        },
        "model": ENCODER | {"rel_pos_bias": "shared"},
    },
    "classify": {
        "task": {"name": "classify", "classes": 4},
        "model": ENCODER | {"rel_pos_bias": "per_block"},
    },
    "multilabel": {
        "task": {"name": "multilabel", "classes": 4},
        "model": ENCODER | {"rel_pos_bias": "per_block"},
    },
    "regress": {
        "task": {"name": "regress", "targets": TARGETS, "std": (2.0, 1.0)},
        "model": ENCODER | {"rel_pos_bias": "per_block"},
    },
    "segment": {
        "task": {
            "name": "segment",
            "classes": 4,
            "head": {"name": "upernet", "channels": 8, "auxiliary": 4},
            "taps": (0, 0, 1, 1),
            "inference": {"room": (32, 32)},
        },
        "model": ENCODER | {"rel_pos_bias": "per_block"},
    },
    "probe": {
        "task": {
            "name": "probe",
            "checkpoint": "untrained",
            "classes": 4,
            "norm": "batch",
        },
        "model": ENCODER | {"rel_pos_bias": "shared"},
    },
}


def config(task: str, **changes):
    """Six steps of a task; `changes` as `a__b=value`.

    An epoch ends within the third batch, the weights are averaged, gradients are
    accumulated: whatever a restart could get wrong is there. No pictures.
    """
    images = {"name": "synthetic"}
    if task == "regress":
        images["targets"] = TARGETS
    settings = c.new(
        **TASKS[task],
        data={
            "source": images | {"num_examples": 20},
            "eval_source": images | {"num_examples": 12, "seed": 1},
            "mask": {"name": "blockwise", "max_patches": 6, "min_block": 2},
        },
        optim={"accumulate": 2, "ema_decay": 0.5},
    )
    usual = {"checkpoint__every_steps": 2, "checkpoint__keep": 1, "eval__pictures": 0}
    return c.smaller(settings, **{**usual, **changes})


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """The committed checkpoints of a run."""
    done = workdir.glob("checkpoints/*/commit_success.txt")
    names = (path.parent.name for path in done)
    return sorted(int(name) for name in names if name.isdigit())


def forget_hashes(step: pathlib.Path) -> None:
    """Makes a step one from before there were hashes of its files."""
    (step / "hashes.json").unlink()
    sentence = f"Checkpoint commit was successful to /{step.name:0>28}"
    (step / "commit_success.txt").write_text(sentence[:64])  # as long as a hash


def arrays(workdir: pathlib.Path, step: int | None = None) -> dict[str, np.ndarray]:
    """Path -> every array of the newest (or that) checkpoint, read by Orbax alone."""
    step = max(saved_steps(workdir)) if step is None else step
    path = workdir / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        return {k: np.asarray(v) for k, v in flatten(reader.restore(path)).items()}


def fingerprint(workdir: pathlib.Path, step: int | None = None) -> dict[str, str]:
    """Path -> SHA-256 of the bits of every array of a checkpoint."""
    return {
        path: hashlib.sha256(
            f"{array.dtype}{array.shape}".encode() + array.tobytes()
        ).hexdigest()
        for path, array in arrays(workdir, step).items()
    }


def lines(workdir: pathlib.Path, name: str = "train/loss") -> list[dict]:
    """The records of `metrics.jsonl` that tell `name`, without the speed."""
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in record.items() if k != "train/images_per_second"}
        for record in records
        if name in record
    ]
