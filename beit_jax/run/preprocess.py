"""Images as the network of a checkpoint is to see them, by its card."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from beit_jax import lookup
from beit_jax.data.frames import FRAMES
from beit_jax.data.ops import decode
from beit_jax.data.settings import Augment
from beit_jax.data.sources import BadExample, Record
from beit_jax.data.views import Views
from beit_jax.models.pixels import PixelSpace
from beit_jax.run import card as card_lib

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
