"""`python -m beit_jax.convert SOURCE TARGET`: weights from one tool to another.

SOURCE is any checkpoint, ours or another project's: a run, a file, a folder, a name on
the Hugging Face hub. What TARGET is to be, --to says:

  orbax        a run of ours (the default where TARGET has no suffix)
  safetensors  one file of ours, with its config and card (.safetensors)
  hf           a folder for transformers' from_pretrained, with its configs
  timm         a file for timm.create_model(..., checkpoint_path=TARGET)
  official     a file for the official code; of a tokenizer, for its own

Files are .safetensors, .npz or, with PyTorch, .pth, by TARGET's suffix. Every array of
the source is used, means nothing on the other side, or is named in --allow; otherwise
nothing is written.
"""

from collections.abc import Sequence

from beit_jax import command
from beit_jax.checkpoints import names
from beit_jax.checkpoints import read as sources
from beit_jax.checkpoints import write as targets
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.run.opened import Opened


def main(options, source: str, target: str) -> None:
    to = targets.choose(target, options.to or "")
    hints = Hints(_size(options.image_size), options.heads, options.pixels)
    saved, report = sources.read(source, hints, options.allow)
    seen = Opened(saved, image_size=hints.image_size)
    saved = seen.adapted()
    report = report._replace(notes=(*report.notes, *seen.notes))
    if saved.config["task"]["name"] != "probe":  # which has no network of its own
        seen.network()  # shapes that make none are told
    leaves = names.flatten({"params": saved.params, **saved.model_state})
    count = sum(leaf.size for leaf in leaves.values())
    print(f"{saved.path}: {count:,} numbers; {report}")
    written = targets.write(saved, target, to, options.allow)
    print(f"{target} ({to}): {written}")


def _size(sides: Sequence[str]) -> tuple[int, int] | None:
    if not all(side.isdecimal() and int(side) for side in sides) or len(sides) > 2:
        raise ValueError(
            f"--image_size={','.join(sides)} must be pixels: a side, or HEIGHT,WIDTH"
        )
    return (int(sides[0]), int(sides[-1])) if sides else None


if __name__ == "__main__":
    command.run("convert", main)
