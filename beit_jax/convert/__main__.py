"""`python -m beit_jax.convert SOURCE TARGET`: another project's weights as ours.

SOURCE is a file with a VQ-VAE's state dict (.npz or .pt; see convert/vqvae.py), TARGET
a work directory to be made. Its checkpoint serves as a target's `checkpoint`, as
`init_from`, and in beit_jax.evaluate.
"""

from beit_jax import card, command, tasks, weights
from beit_jax import config as config_lib
from beit_jax.convert import vqvae

# What the file does not tell. The network takes images of any size.
VQVAE = {"name": "vqvae", "image_size": 112, "pixels": "centred"}


def main(_, source: str, target: str) -> None:
    settings, params, model_state = vqvae.load(source)
    config = config_lib.new(
        epochs=0.0, task={"name": "tokenizer"}, model=VQVAE | settings
    )
    made = card.of(config, tasks.build(config), class_names=())
    step = weights.save_params(target, params, model_state, config, made)
    leaves = weights.flatten({"params": params, "model_state": model_state})
    count = sum(leaf.size for leaf in leaves.values())
    print(f"{step}: {len(leaves)} arrays, {count:,} numbers")


if __name__ == "__main__":
    command.run(main, ("SOURCE", "TARGET"))
