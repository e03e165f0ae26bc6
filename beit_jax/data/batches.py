"""How the batch of a step is made: draw -> read and make views -> batch -> mask."""

import contextlib
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from beit_jax import lookup, masks
from beit_jax.data import draws, sources, views
from beit_jax.data.augmentations import AUGMENTATIONS
from beit_jax.data.frames import FRAMES
from beit_jax.data.graph import tf
from beit_jax.data.ledger import Ledger
from beit_jax.data.ops import decode, masking
from beit_jax.data.settings import Augment
from beit_jax.data.spec import Spec, dtypes, spec_of
from beit_jax.data.spec import train_only as train_only

Batch = dict[str, np.ndarray]
Shard = tuple[int, int]  # (host index, host count)

_CHUNK = 8  # examples that a thread makes in one go
# About a tenth of the work on an image holds Python's lock: more threads would wait.
_MAX_THREADS = 16
_TINY = 2**12  # bytes of an image as stored; two threads halve the speed at 32 px
_PADDING = -1  # the index of what only fills the last batch


class Batches:
    """How the batch of a step is made, for training and evaluation alike."""

    def __init__(
        self,
        source: sources.Source,
        config: Mapping[str, Any],
        example_spec: dict[str, Any],
        seed: int,
        training: bool,
    ):
        _check_spec(example_spec, source.info)
        self.source, self.config, self.example_spec = source, config, example_spec
        self.seed, self.training = seed, training
        self.batch_size = config["batch_size"]
        self.ledger = Ledger(
            config.get("on_bad", "error"),
            config.get("max_bad", 0.0),
            source.info.num_examples,
        )
        settings = Augment.from_config(config.get("augment", {}))
        self._repeats = settings.repeats
        frame = "frame" if training else "eval_frame"
        default = {"name": "random_resized" if training else "centre"}
        self.views = views.Views(
            settings,
            example_spec,
            lookup.build(FRAMES, config.get(frame, default), f"data.{frame}"),
            training,
            classes=len(source.info.class_names),
            max_pixels=config.get("max_pixels", decode.MAX_PIXELS),
            apply_exif=config.get("apply_exif", False),
            dct_scaled=training and config.get("dct_scaled", False),
        )
        self._kept: dict[int, tuple[sources.Record, Image.Image]] = {}
        self._room = int(config.get("decoded_cache_gib", 0) * 2**30)  # in bytes
        if self._room and training and config.get("dct_scaled", False):
            raise ValueError(
                "data.decoded_cache_gib keeps whole images and data.dct_scaled makes "
                "smaller ones: which of them is shown would be chance; set one to 0"
            )
        self.masks(tf.zeros([1], tf.int64))  # wrong settings fail now, not later

    @property
    def spec(self) -> Spec:
        return spec_of(self.example_spec, self.batch_size)

    def counters(self, step: tf.Tensor | int, shard: Shard) -> tf.Tensor:
        """This host's part of the global example counters of batch `step`."""
        host, hosts = shard
        share = self.batch_size // hosts
        first = tf.cast(step, tf.int64) * self.batch_size + host * share
        return first + tf.range(share, dtype=tf.int64)

    def draw(self, counter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Counters (B,) -> indices (B,) in the source, uniforms (B, K)."""
        numbers = []
        for name, count in self.views.numbers.items():
            row = AUGMENTATIONS.get(name)
            key = counter // self.batch_size if row and row.shared else counter
            purpose = name if self.training else f"eval {name}"
            numbers.append(draws.stream(self.seed, purpose, key)(0, count))
        if self.training:
            index = self.source.order(self.seed, counter // self._repeats)
        else:
            real = counter < self.source.info.num_examples
            index = tf.where(real, counter, _PADDING)
        return index, tf.concat(numbers, axis=-1)

    def example(self, index: int, numbers: np.ndarray) -> Batch:
        """One example without mask; all zeros for padding and what is skipped."""
        try:
            if index != _PADDING:
                return self._made(index, numbers) | {"weight": np.float32(1)}
        except sources.BadExample as error:
            name, sentence = self.source.describe(index), str(error)
            named = name in sentence  # what a source says itself
            self.ledger.note(index, sentence if named else f"{name}: {sentence}")
        return {name: np.zeros(*form) for name, form in self._forms(()).items()}

    def _forms(self, lead: tuple[int, ...]) -> Spec:
        """Shapes after `lead` axes and dtypes of what is not drawn but made."""
        return {
            name: ((*lead, *shape[1:]), dtype)
            for name, (shape, dtype) in self.spec.items()
            if name not in ("mask", "index")
        }

    def _made(self, index: int, numbers: np.ndarray) -> Batch:
        record, image = self._kept.get(index) or self._opened(index)
        u, start = {}, 0
        for purpose, count in self.views.numbers.items():
            u[purpose] = numbers[start : start + count]
            start += count
        return self.views.make(record, image, u)

    def _opened(self, index: int) -> tuple[sources.Record, Image.Image]:
        """The example and its image, decoded and kept while there is room."""
        record = self.source.read(index)
        image = self.views.open(record)
        if self.training and self._room > 0:
            image = decode.to_rgb(image)
            self._room -= 4 * image.width * image.height  # Pillow pads RGB to 4 bytes
            self._kept[index] = record._replace(image=b""), image
        return record, image

    def masks(self, counter: tf.Tensor) -> dict[str, tf.Tensor]:
        """The masks (B, gh, gw) bool of examples (B,), if the spec asks for them."""
        if "mask" not in self.example_spec:
            return {}
        purpose = "train mask" if self.training else "eval mask"
        grid = tuple(self.example_spec["mask"].shape)
        mask = lookup.build(
            masking.MASKS,
            masks.counted(self.config["mask"], math.prod(grid)),
            "beit_jax.data.masking",
            draw=draws.stream(self.seed, purpose, counter),
            batch=counter.shape[0],
            grid=grid,
        )
        return {"mask": mask}

    def drawn(self, steps: tf.data.Dataset, shard: Shard) -> tf.data.Dataset:
        """All that chance decides of this host's part of the batches.

        Yields "index" (b,) int64, "numbers" (b, K) float64 and perhaps "mask".
        """

        # Not through autograph: it has nothing to convert and hides errors.
        @tf.autograph.experimental.do_not_convert
        def draw(step):
            counter = self.counters(step, shard)
            index, numbers = self.draw(counter)
            return {"index": index, "numbers": numbers, **self.masks(counter)}

        return steps.map(draw, num_parallel_calls=2, deterministic=True).prefetch(2)

    def iterate(self, steps: tf.data.Dataset, shard: Shard) -> Iterator[Batch]:
        """The batches of `steps`, a few of them made ahead by threads.

        Python's threads and not TensorFlow's: those calling into Python can neither be
        stopped safely nor pass on an error as it was raised.
        """
        host = shard[0]
        if self.batch_size % shard[1] or not 0 <= host < shard[1]:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be split over {shard[1]} hosts "
                f"(this one is number {host}); it must be a multiple of the count"
            )
        threads = self._threads()
        share = self.batch_size // shard[1]
        ahead = 2 + threads * _CHUNK // share  # enough for every thread
        pool, made = ThreadPoolExecutor(threads), deque()
        try:
            for drawn in self.drawn(steps, shard).as_numpy_iterator():
                made.append(self._begin(pool, drawn))
                if len(made) > ahead:
                    yield _finished(*made.popleft())
            while made:
                yield _finished(*made.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def chosen(self, counter: np.ndarray) -> Batch:
        """The examples of any counters (b,) int64, as a batch; made one by one."""
        counter = tf.constant(counter)
        index, numbers = self.draw(counter)
        drawn = {"index": index.numpy()}
        drawn |= {name: mask.numpy() for name, mask in self.masks(counter).items()}
        made = list(map(self.example, drawn["index"].tolist(), numbers.numpy()))
        return drawn | {name: np.stack([one[name] for one in made]) for name in made[0]}

    def _threads(self) -> int:
        """One where images are tiny: threads would only wait for Python's lock."""
        size = _TINY
        with contextlib.suppress(sources.BadExample):  # one that cannot tell
            image = self.source.read(0).image
            size = len(image) if isinstance(image, bytes) else image.nbytes
        return 1 if size < _TINY else min(os.cpu_count() or 1, _MAX_THREADS)

    def _begin(self, pool: ThreadPoolExecutor, drawn: Batch):
        """A batch that the pool is filling, and what to wait for."""
        index, numbers = drawn["index"].tolist(), drawn.pop("numbers")
        share = len(index)
        forms = self._forms((share,)).items()
        batch = {name: np.empty(*form) for name, form in forms} | drawn

        def fill(first: int) -> None:
            for row in range(first, min(first + _CHUNK, share)):
                for name, array in self.example(index[row], numbers[row]).items():
                    batch[name][row] = array

        return batch, [pool.submit(fill, row) for row in range(0, share, _CHUNK)]


def _finished(batch: Batch, parts: list[Future]) -> Batch:
    for part in parts:
        part.result()  # raises what the thread raised
    return batch


def _check_spec(example_spec: Mapping[str, Any], info: sources.Info) -> None:
    """Raises ValueError for what data cannot put in a batch, or this source not."""
    for name, form in example_spec.items():
        want = lookup.lookup(dtypes(), name, "what data can put in a batch")
        if form.dtype != want:
            raise ValueError(
                f"{name!r} of the example spec has dtype {form.dtype}; data "
                f"makes {np.dtype(want)}"
            )
    if {"label", "labels"} & example_spec.keys() and not info.class_names:
        raise ValueError(
            f"the task needs labels and {info.name} has none; put "
            "the images into class folders, or list them with labels"
        )
