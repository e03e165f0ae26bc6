"""Checkpoints as modules to compute with: what `beit_jax.load` does."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from beit_jax import config as config_lib
from beit_jax import lookup, sharding, tasks
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints import names
from beit_jax.checkpoints.foreign.rules import Hints, pair
from beit_jax.checkpoints.read import restore
from beit_jax.checkpoints.steps import Restored
from beit_jax.data.frames import FRAMES
from beit_jax.data.ops import decode
from beit_jax.data.settings import Augment
from beit_jax.data.sources import BadExample, Record
from beit_jax.data.views import Views
from beit_jax.models.pixels import PixelSpace
from beit_jax.models.tokenizers import TOKENIZERS
from beit_jax.run import bank, state
from beit_jax.run import card as card_lib
from beit_jax.run.state import TrainState
from beit_jax.targets.tokens import UNTRAINED

Tree = Any
ImageLike = str | pathlib.Path | Image.Image | np.ndarray


class Preprocess:
    """Images as an evaluation of a checkpoint sees them; all is in its card.

    Attributes:
      space: of the floats; its `to_uint8` makes images of them again.
    """

    def __init__(self, card: card_lib.Card):
        form = jax.ShapeDtypeStruct((*card["image_size"], 3), jnp.uint8)
        self._views = Views(
            Augment(interpolation=card["interpolation"]),
            {"image": form},
            lookup.build(FRAMES, card["frame"], "the card's frame"),
            training=False,
            apply_exif=card["apply_exif"],
        )
        self._exif = card["apply_exif"]
        self.space = PixelSpace(tuple(card["mean"]), tuple(card["std"]))
        self._to_float = jax.jit(self.space.to_float)

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> jax.Array:
        """One image or several -> (B, H, W, 3) float32, resized, cut and normalised.

        Args:
          images: paths, PIL images, or arrays (H, W, 3) of uint8; or one of these.

        Raises:
          ValueError: something else, or a file that is no image.
        """
        several = isinstance(images, (list, tuple))
        seen = [self._see(image) for image in (images if several else [images])]
        return self._to_float(np.stack(seen))

    def _see(self, image: ImageLike) -> np.ndarray:
        """(H, W, 3) uint8"""
        if isinstance(image, (str, pathlib.Path)):
            path = pathlib.Path(image).expanduser()
            try:
                return self._cut(self._views.open(Record(path.read_bytes())))
            except (BadExample, OSError) as error:
                raise ValueError(f"{path} cannot be used: {error}") from error
        if isinstance(image, np.ndarray):
            if image.shape[2:] != (3,) or image.dtype != np.uint8:
                raise ValueError(
                    f"an image of {image.dtype}{list(image.shape)} must be "
                    "uint8[height, width, 3]; give several as a list"
                )
            image = Image.fromarray(image)
        if not isinstance(image, Image.Image):
            raise ValueError(f"an image is a path, of PIL or an array, not {image!r}")
        return self._cut(decode.upright(image) if self._exif else image)

    def _cut(self, image: Image.Image) -> np.ndarray:
        return self._views.make(Record(b""), image, self._views.middle)["image"]


class Loaded(NamedTuple):
    """A checkpoint that is ready for use."""

    module: nn.Module
    variables: Tree  # for module.apply
    preprocess: Preprocess  # images -> what the module takes
    card: card_lib.Card  # what else is known, class_names say: see card.py


def load(
    path: str | pathlib.Path,
    image_size: int | tuple[int, int] | None = None,
    config: ConfigDict | None = None,
) -> Loaded:
    """See `beit_jax.load`."""
    saved = restore(path, Hints(image_size=image_size))
    if config is not None:
        saved = saved._replace(config=config_for(saved, config).to_dict())
    module, variables = network(saved)
    card = card_lib.of_checkpoint(saved)
    return Loaded(module, jax.device_put(variables), Preprocess(card), card)


def network(saved: Restored) -> tuple[nn.Module, Tree]:
    """A checkpoint's module, and what its `apply` takes.

    Raises:
      ValueError: it has no network, or arrays of other shapes than its config says.
    """
    if bank.has_encoder(saved):
        module, params = _of_encoder(saved)
    elif saved.config["task"]["name"] == "tokenizer":
        module, params = _tokenizer(saved), saved.params
    else:
        raise ValueError(
            f"{saved.path} is of task {saved.config['task']['name']!r}, which has no "
            "network of its own; load the checkpoint that its encoder is from"
        )
    variables = {"params": params, **saved.model_state}
    image = jnp.zeros((1, *pair(saved.config["model"]["image_size"]), 3))
    wants = dict(nn.unbox(jax.eval_shape(module.init, jax.random.key(0), image)))
    if "decoder" in wants["params"].keys() - params.keys():
        del wants["params"]["decoder"]  # of a tokenizer's encoder alone
    names.check_fit(variables, wants, str(saved.path))
    return module, variables


def _of_encoder(saved: Restored) -> tuple[nn.Module, Tree]:
    """An encoder with the head that its config names, if it has one; and parameters."""
    encoder, _, _ = bank.encoder_of(saved)
    if saved.params.keys() == {"encoder"}:
        return encoder, saved.params["encoder"]
    network = tasks.build(_standing_alone(saved)).network
    return network.clone(encoder=encoder), saved.params


def _standing_alone(saved: Restored) -> ConfigDict:
    """Its config; the tokenizer that it predicted tokens of need not be there."""
    config = config_lib.from_dict(saved.config)
    if config.task.name == "pretrain" and "lm_head" in saved.params:
        vocab = saved.params["lm_head"]["kernel"].shape[1]
        if config.task.target.name == "tokens":
            config.task.target = {
                "name": "tokens",
                "checkpoint": UNTRAINED,
                "untrained": {"vocab": vocab},
            }
    return config


def _tokenizer(saved: Restored) -> nn.Module:
    config = config_lib.from_dict(saved.config)
    settings = dict(config.model)
    for name in ("image_size", "pixels"):  # of its images, not of the network
        settings.pop(name, None)
    dtype = jnp.dtype(config.dtype)
    return lookup.build(TOKENIZERS, settings, "config.model", dtype=dtype)


def own_config(saved: Restored) -> ConfigDict:
    """The one that a checkpoint carries, on the devices that are here."""
    config = config_lib.from_dict(saved.config)
    config.mesh = config_lib.defaults().mesh
    return config


def config_for(saved: Restored, given: ConfigDict | None) -> ConfigDict:
    """A copy of the config `given`, whole, or else the checkpoint's own.

    Raises:
      ValueError: it has keys that there are not, or lacks some.
    """
    config = (given or own_config(saved)).copy_and_resolve_references()
    config_lib.check(config)
    return config


def on_mesh(saved: Restored, task, mesh: Mesh) -> tuple[TrainState, Tree]:
    """A checkpoint's weights and the task's frozen ones, in their places on the mesh.

    Raises:
      ValueError: weights of another model, or trained on other frozen ones.
    """
    records = frozen_lib.records(task.frozen)
    frozen_lib.compare(records, saved.position, str(saved.path))
    one = {
        name: jax.ShapeDtypeStruct((1, *form.shape), form.dtype)
        for name, form in task.train_spec.items()
    }
    boxed = state.abstract_variables(task, one)
    params = task.adapt(saved.params, saved.config["model"])
    have = {"params": params, "model_state": saved.model_state}
    names.check_fit(have, nn.unbox(boxed), str(saved.path))
    have = jax.device_put(have, sharding.shardings_of(boxed, mesh))
    step = jnp.asarray(saved.step, jnp.int32)
    frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
    return TrainState(step=step, opt_state=None, ema=None, **have), frozen
