"""BEiT in JAX: image tokenizers, masked image modelling, fine-tuning, evaluation."""

import os

__version__ = "0.1.0"

# TensorFlow only feeds data here; without these it greets every process.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def load(path, image_size=None, config=None):
    """A checkpoint as a module, its variables, its preprocessing and its card.

        import beit_jax
        import jax

        beit = beit_jax.load("runs/finetune")
        images = beit.preprocess(["cat.jpg", "dog.jpg"])  # (2, 224, 224, 3) float32
        logits = jax.jit(beit.module.apply)(beit.variables, images)  # (2, C) float32
        names = beit.card["class_names"]
        for row in jax.nn.softmax(logits):
            best = row.argmax()
            print(f"{names[best]}: {row[best]:.1%}")

    `module.apply` gives, of a classifier, logits (B, C); of a pre-trained encoder those
    of the visual tokens of all patches (B, N, V), where a mask (B, N) may follow the
    images; of an encoder without a head `models.vit.Features`. A tokenizer is applied
    by `module.apply(variables, images, method="encode")` and, to what that gives,
    `method="decode"`.

    `preprocess` takes a path, a PIL image or an array (H, W, 3) of uint8, or a list of
    them, and prepares them as an evaluation of the checkpoint does.

    Args:
      path: a run's work directory or one step in it, a file or folder of another
        project, or the name of a repository on the Hugging Face hub,
        "hf:owner/name" (which needs the extra "hub").
      image_size: of the images, a side in pixels or (height, width), instead of the
        checkpoint's; an encoder's positions are resized.
      config: a recipe's, instead of the one that the checkpoint carries: of a run with
        a head, target or task of your own, the recipe that adds it to its table;
        where that is in a module that a recipe of yours has named, none is needed.

    Returns:
      A `opened.Loaded`.

    Raises:
      ValueError: there is no checkpoint, or it is of no known network.
    """
    from beit_jax.run import opened  # which imports all else

    return opened.load(path, image_size, config)
