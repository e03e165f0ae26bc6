"""How an evaluation sees whole images of any size: windows, scales, mirrors.

An image and its labels come at their own size, at the top left of a room. All that
happens to them happens on the device: the image is resized, windows slide over it, the
logits are resized to the image's own size, a few rows at a time, and only what is most
likely is kept. So memory is bounded by the settings, not by the images.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from beit_jax import lookup
from beit_jax.models import sampling
from beit_jax.ranges import Count, Length
from beit_jax.tasks import windows
from beit_jax.tasks.viewing import mean_of_logs

Array = jax.Array
Size = tuple[int, int]
Logits = Callable[[Array], Array]  # images (N, h, w, 3) in [0, 255] -> (N, h', w', C)

ROWS = 64  # of an image that are resized together
# Settings that are one word of these.
CHOICES = {
    "mode": ("whole", "slide"),
    "average": ("probabilities", "logits"),
    "map": ("linear", "nearest"),
    "filter": ("area", "linear"),
}


class Inference(NamedTuple):
    """The settings `task.inference`.

    The released networks are evaluated by mode="slide" with short=512 (or 640),
    long=2048, strides of two thirds of a window, and filter="linear".
    """

    mode: str = "whole"  # squash images to model.image_size; or "slide" it over them
    room: tuple = (2048, 2048)  # height and width that images and labels must fit in
    stride: tuple = ()  # of the windows in pixels: down, across; (): 2/3 of a window
    # Sides of images before windows slide over them, their shape kept: the short one is
    # that long, unless the long one would be longer than `long`; 0: as they are.
    short: Count = 0
    long: Count = 2048  # see `short`
    scales: tuple = (1.0,)  # of all that; the predictions are averaged
    flip: bool = False  # see each mirrored, too
    average: str = "probabilities"  # what of several views is averaged; or "logits"
    # How logits get to the image's own size: by "linear" interpolation, or the classes
    # of the nearest place.
    map: str = "linear"
    filter: str = "area"  # how images are resized: "area", as in training, or "linear"
    windows: Length = 8  # of an image that the network sees together

    def check(self, size: Size) -> None:
        """Raises ValueError for settings that do not fit a network made for `size`."""
        square = size[0] == size[1]
        rules = {
            f"{name}={getattr(self, name)!r} must be one of {words}": (
                getattr(self, name) in words
            )
            for name, words in CHOICES.items()
        } | {
            f"room={self.room} must be two lengths in pixels": _are_lengths(self.room),
            f"stride={self.stride} must be (), or two lengths in pixels": (
                self.stride == () or _are_lengths(self.stride)
            ),
            f"scales={self.scales} must be numbers above 0": bool(self.scales)
            and all(lookup.has_type(s, float) and s > 0 for s in self.scales),
            f"short={self.short} wants a square model.image_size, not {size}": (
                square or not self.short or self.mode == "whole"
            ),
            f"long={self.long} must be at least short={self.short}": (
                self.long >= self.short
            ),
        }
        lookup.demand("config.task.inference:", rules)


class View(NamedTuple):
    """An image at one scale.

    Attributes:
      scale: of `short` and `long`, or of the image's own size.
      flip: whether it is mirrored.
      crop: height and width of the windows.
      canvas: height and width of the array that it lies in.
    """

    scale: float
    flip: bool
    crop: Size
    canvas: Size


class Sheet(NamedTuple):
    """Logits of pictures, which may have been seen mirrored.

    Attributes:
      logits: (G, H, W, C); each picture's at the top left.
      sizes: (G, 2) int32, of the pictures in it.
      flips: (2, G) bool, whether they are mirrored down and across.
    """

    logits: Array
    sizes: Array
    flips: Array

    def rows(self, places: Array, size: Array, width: int, kind: str) -> Array:
        """(G, R, width, C) logits of some rows of the images, whose size is (G, 2)."""
        wanted = places, jnp.arange(width)
        return _resized(self.logits, wanted, self.sizes, size, self.flips, kind)


def _resized(
    values: Array,
    wanted: tuple[Array, Array],
    before: Array,
    after: Array,
    flips: Array,
    kind: str,
) -> Array:
    """Pictures (G, H, W, C) of sizes `before` (G, 2), resized to sizes `after`.

    Args:
      wanted: (R,) and (K,), the rows and the columns of them to give.
    """

    def along(axis: int) -> Array:
        count = values.shape[1 + axis]
        return jax.vmap(
            lambda b, a, flip: sampling.matrix(wanted[axis], b, a, count, flip, kind)
        )(before[:, axis], after[:, axis], flips[axis])

    return sampling.resize(values, along(0), along(1))


class Seeing:
    """Maps of the classes of whole images.

    Attributes:
      room: height and width of the images that it takes.
    """

    def __init__(self, settings: Inference, size: Size, patch: int):
        self._is = settings
        self._turns = settings.mode == "slide" and settings.short > 0
        self.room = tuple(settings.room)
        if self._turns:  # so that portraits lie in it as landscapes do
            self.room = (max(self.room),) * 2
        self._views = [
            View(scale, flip, *self._sizes(scale, size, patch))
            for scale in settings.scales
            for flip in (False, True)[: 1 + settings.flip]
        ]

    def __call__(
        self, logits_of: Logits, image: Array, size: Array, labels: Array
    ) -> tuple[Array, Array]:
        """The classes of whole images, and how likely the right ones are.

        Args:
          logits_of: the network.
          image: (G, *room, 3) uint8; memory is for all G of them.
          size: (G, 2) int32, height and width of the images.
          labels: (G, *room) int32.

        Returns:
          classes (G, *room) int32, and -log of the probability (G, *room) float32 of
          the labels that are classes, in nats; both mean nothing beyond an image.
        """
        turned = self._turns & (size[:, 0] > size[:, 1])
        image, labels = self._turn(image, turned), self._turn(labels, turned)
        size = jnp.where(turned[:, None], size[:, ::-1], size)
        pixels = image.astype(jnp.float32)
        sheets = [self._sheet(logits_of, pixels, size, turned, v) for v in self._views]
        found, nll = self._read(sheets, size, labels)
        return self._turn(found, turned), self._turn(nll, turned)

    def _sizes(self, scale: float, size: Size, patch: int) -> tuple[Size, Size]:
        """Of the windows and of the canvas of a view."""
        if self._is.mode == "whole":
            crop = tuple(max(round(s * scale / patch), 1) * patch for s in size)
            return crop, crop
        if self._turns:
            return size, self._sides(scale, size)
        whole = (int(side * scale + 0.5) for side in self.room)
        return size, tuple(map(max, whole, size))

    def _sides(self, scale: float, crop: Size) -> Size:
        """The short and the long side at a scale; no shorter than a window."""
        short = max(int(self._is.short * scale), crop[0])
        return short, max(int(self._is.long * scale), short)

    def _target(self, size: Array, view: View) -> Array:
        """(G, 2) int32, to what images are resized; landscapes where it turns them."""
        if self._is.mode == "whole":
            return jnp.broadcast_to(jnp.array(view.crop), size.shape)
        if not self._turns:
            return jnp.maximum(jnp.floor(size * view.scale + 0.5), 1).astype(jnp.int32)
        short, long = view.canvas
        height, width = size[:, 0], size[:, 1]
        by_long = long * height < short * width  # which of the two comes first
        above = jnp.where(by_long, long, short)[:, None]
        below = jnp.where(by_long, width, height)[:, None]
        return (2 * size * above + below) // (2 * below)  # rounds, in whole numbers

    def _turn(self, values: Array, turned: Array) -> Array:
        """Pictures (N, S, S, ...) with their sides exchanged where `turned` (N,)."""
        if not self._turns:
            return values
        turned = turned.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(turned, values.swapaxes(1, 2), values)

    def _sheet(
        self, logits_of: Logits, image: Array, size: Array, turned: Array, view: View
    ) -> Sheet:
        target = self._target(size, view)
        flips = jnp.stack([view.flip & turned, view.flip & ~turned])
        wanted = tuple(map(jnp.arange, view.canvas))
        seen = _resized(image, wanted, size, target, flips, self._is.filter)
        at_once = 1 if self._is.mode == "whole" else self._is.windows
        each = jnp.repeat(turned, at_once)

        def net(window: Array) -> Array:
            made = logits_of(self._turn(window, each))
            return self._turn(sampling.bilinear(made, view.crop), each)

        stride = self._is.stride or tuple(max(c * 2 // 3, 1) for c in view.crop)
        logits = windows.slide(net, jnp.round(seen), target, view.crop, stride, at_once)
        return Sheet(logits, target, flips)

    def _read(
        self, sheets: list[Sheet], size: Array, labels: Array
    ) -> tuple[Array, Array]:
        """What `__call__` returns, a few rows after the other."""
        height, width = labels.shape[1:]
        rows = min(ROWS, height)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1)

        def block(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            begin, found, nll = carry
            top = jnp.minimum(begin, height - rows)
            logs = self._logs(sheets, top + jnp.arange(rows), size, width)
            wanted = jax.lax.dynamic_slice_in_dim(labels, top, rows, axis=1)
            wanted = jnp.clip(wanted, 0, logs.shape[-1] - 1)[..., None]
            each = -jnp.take_along_axis(logs, wanted, axis=-1)[..., 0]
            best = jnp.argmax(logs, axis=-1).astype(jnp.int32)
            return begin + rows, put(found, best, top), put(nll, each, top)

        shape, last = labels.shape, jnp.max(size[:, 0])
        start = jnp.int32(0), jnp.zeros(shape, jnp.int32), jnp.zeros(shape)
        return jax.lax.while_loop(lambda carry: carry[0] < last, block, start)[1:]

    def _logs(self, sheets: list[Sheet], rows: Array, size: Array, width: int) -> Array:
        """(G, R, width, C) log-probabilities of rows of the images."""
        logits = [sheet.rows(rows, size, width, self._is.map) for sheet in sheets]
        if self._is.average == "logits":
            return jax.nn.log_softmax(sum(logits) / len(logits))
        return mean_of_logs([jax.nn.log_softmax(each) for each in logits])


def build(section: Mapping[str, Any], size: Size, patch: int) -> Seeing:
    """What sees images with a network made for `size` and such patches.

    Raises:
      ValueError: settings that do not fit.
    """
    settings = lookup.call(Inference, dict(section), "config.task.inference")
    settings.check(size)
    return Seeing(settings, size, patch)


def _are_lengths(value: tuple) -> bool:
    return len(value) == 2 and all(lookup.has_type(n, int) and n > 0 for n in value)
