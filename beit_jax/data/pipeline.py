"""Streams of batches: read -> augment -> batch -> mask -> prefetch.

A position in the data is one integer. Batch k holds the examples with global counters
[k * B, (k + 1) * B), and everything about an example follows from (seed, counter): so
seeking is free, and hosts only divide the work.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from beit_jax import tables
from beit_jax.data import augment, draws, masking, sources

Batch = dict[str, np.ndarray]
Shard = tuple[int, int]  # (host index, host count)

_DTYPES = {
    "image": np.uint8,
    "token_image": np.uint8,
    "mask": np.bool_,
    "label": np.int32,
}
_METHODS = {"image": "bicubic", "token_image": "lanczos3"}
_CACHE_BYTES = 2**28  # evaluation batches are kept when all of them fit in this
_MAX_THREADS = 16


def train_stream(
    config: Mapping[str, Any], example_spec: Mapping[str, Any], seed: int
) -> "Stream":
    """Endless, shuffled, augmented batches of `config["source"]`.

    Args:
      config: a run's `config.data`: batch_size, source, augment, mask.
      example_spec: name -> shape and dtype of one example, as a task declares it:
        image and perhaps token_image, mask, label.
      seed: of the run.

    Raises:
      ValueError: the source, the settings and the spec do not go together.
    """
    source = sources.build(config["source"])
    crop = augment.Crop.from_config(config.get("augment", {}))
    count = source.info.num_examples

    def index_of(counter):
        return draws.shuffled(counter % count, count, seed, epoch=counter // count)

    def view(image, counter, size, method):
        given = tf.shape(image)[-3:-1]
        box = augment.random_box(draws.stream(seed, "crop", counter), given, crop)
        image = augment.crop_resize(image, box, size, method)
        if not crop.flip:
            return image
        u = draws.stream(seed, "flip", counter)(0, 1)[..., 0]
        return augment.flip(image, u < 0.5)

    plan = _Plan(source, config, example_spec, seed, "train mask", index_of, view)
    return Stream(plan, max(1, count // plan.batch_size))


def eval_stream(
    config: Mapping[str, Any], example_spec: Mapping[str, Any], seed: int
) -> "EvalStream":
    """Every example of `config["eval_source"]` once, in order, centre-cropped.

    An example's mask is the same in every pass. Arguments and errors are those of
    `train_stream`.
    """
    source = sources.build(config["eval_source"])
    crop = augment.Crop.from_config(config.get("augment", {}))
    last = source.info.num_examples - 1

    def index_of(counter):
        return tf.minimum(counter, last)  # what lies beyond only fills the last batch

    def view(image, counter, size, method):
        del counter
        return augment.centre_crop(image, size, method, crop.eval_scale)

    plan = _Plan(source, config, example_spec, seed, "eval mask", index_of, view)
    return EvalStream(plan, last // plan.batch_size + 1)


@dataclass(frozen=True)
class _Plan:
    """How the batch of a step is made, for training and evaluation alike."""

    source: sources.Source
    config: Mapping[str, Any]
    example_spec: Mapping[str, Any]
    seed: int
    mask_purpose: str
    index_of: Callable[[tf.Tensor], tf.Tensor]  # counter -> index in the source
    view: Callable[..., tf.Tensor]  # image, counter, size, method -> image

    def __post_init__(self):
        for name, spec in self.example_spec.items():
            want = tables.lookup(_DTYPES, name, "what data can put in a batch")
            if spec.dtype != want:
                raise ValueError(
                    f"{name!r} of the example spec has dtype {spec.dtype}; data "
                    f"makes {np.dtype(want)}"
                )
        if "label" in self.example_spec and not self.source.info.class_names:
            raise ValueError(
                f"the task needs labels and {self.source.info.name} has none; put "
                "the images into class folders"
            )
        self.masks(tf.zeros([1], tf.int64))  # wrong settings fail now, not later

    @property
    def batch_size(self) -> int:
        return self.config["batch_size"]

    @property
    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        shapes = {name: s.shape for name, s in self.example_spec.items()}
        dtypes = {**_DTYPES, "weight": np.float32}
        return {
            name: ((self.batch_size, *shape), np.dtype(dtypes[name]))
            for name, shape in {**shapes, "weight": ()}.items()
        }

    def counters(self, step: tf.Tensor | int, shard: Shard) -> tf.Tensor:
        """This host's part of the global example counters of batch `step`."""
        host, hosts = shard
        share = self.batch_size // hosts
        first = tf.cast(step, tf.int64) * self.batch_size + host * share
        return first + tf.range(share, dtype=tf.int64)

    def load(self, counter: tf.Tensor) -> dict[str, tf.Tensor]:
        """One example, or a stack for a vector of counters, without mask."""
        example = self.source.read(self.index_of(counter))
        image = _decode(example["image"])
        result = {"counter": counter, "label": example["label"]}
        made = {}
        for name, method in _METHODS.items():
            if name in self.example_spec:
                size = tuple(self.example_spec[name].shape[:2])
                # Views of one size are the same pixels, whatever their method.
                if size not in made:
                    made[size] = self.view(image, counter, size, method)
                result[name] = made[size]
        return result

    def masks(self, counter: tf.Tensor) -> dict[str, tf.Tensor]:
        """The masks (B, gh, gw) bool of examples (B,), if the spec asks for them."""
        if "mask" not in self.example_spec:
            return {}
        mask = tables.build(
            masking.MASKS,
            self.config["mask"],
            "beit_jax.data.masking",
            draw=draws.stream(self.seed, self.mask_purpose, counter),
            batch=counter.shape[0],
            grid=tuple(self.example_spec["mask"].shape),
        )
        return {"mask": mask}

    def finish(self, batch: dict[str, tf.Tensor], limit: int | None) -> dict:
        """Adds masks and weights; keeps what the spec asks for."""
        counter = batch["counter"]
        real = tf.ones_like(counter, tf.bool) if limit is None else counter < limit
        batch = {**batch, **self.masks(counter), "weight": tf.cast(real, tf.float32)}
        return {name: batch[name] for name in self.spec}

    def dataset(
        self, steps: tf.data.Dataset, shard: Shard, limit: int | None = None
    ) -> tf.data.Dataset:
        """Batches of the given steps; weight 0 from counter `limit` on."""
        host, hosts = shard
        if self.batch_size % hosts or not 0 <= host < hosts:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be split over {hosts} hosts "
                f"(this one is number {host}); it must be a multiple of the count"
            )

        def parallel(data, function):
            # Not through autograph: it has nothing to convert and hides errors.
            plain = tf.autograph.experimental.do_not_convert(function)
            return data.map(plain, num_parallel_calls=tf.data.AUTOTUNE)

        data = parallel(steps, lambda step: self.counters(step, shard))
        if self.source.stacked:
            data = parallel(data, self.load)
        else:
            data = parallel(data.unbatch(), self.load)
            data = data.batch(self.batch_size // hosts, drop_remainder=True)
        data = parallel(data, lambda batch: self.finish(batch, limit))
        options = tf.data.Options()
        options.deterministic = True
        options.threading.private_threadpool_size = min(
            os.cpu_count() or 1, _MAX_THREADS
        )
        return data.with_options(options)

    def iterate(
        self, data: tf.data.Dataset, first_step: int, shard: Shard
    ) -> Iterator[Batch]:
        """The batches of `data`; an image that cannot be decoded is named."""
        step = first_step
        undecodable = tf.errors.InvalidArgumentError  # at exit `tf` may be gone
        try:
            for batch in data.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
                yield batch
                step += 1
        except undecodable as error:
            self.name_broken_image(step, shard, error)
            raise

    def name_broken_image(self, step: int, shard: Shard, cause: Exception) -> None:
        """Decodes batch `step` again, one by one: a graph cannot say which failed.

        Raises:
          ValueError: names the first image that cannot be decoded.
        """
        for counter in self.counters(step, shard):
            index = self.index_of(counter)
            try:
                _decode(self.source.read(index)["image"])
            except tf.errors.InvalidArgumentError as error:
                raise ValueError(
                    f"cannot decode {self.source.describe(int(index))}: {error.message}"
                ) from cause


@dataclass(frozen=True)
class _Stream:
    plan: _Plan
    steps_per_epoch: int

    @property
    def info(self) -> sources.Info:
        return self.plan.source.info

    @property
    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Name -> (global shape with batch axis, dtype)."""
        return self.plan.spec


class Stream(_Stream):
    """Endless training batches.

    The example counter runs on from epoch to epoch, so no example is dropped;
    `steps_per_epoch` counts the whole batches in one, and is at least 1.
    """

    def batches(self, first_step: int = 0, shard: Shard = (0, 1)) -> Iterator[Batch]:
        """This host's slice of batch `first_step` and of all that follow."""
        data = self.plan.dataset(tf.data.Dataset.counter(first_step), shard)
        return self.plan.iterate(data, first_step, shard)


@dataclass(frozen=True)
class EvalStream(_Stream):
    """A pass of `steps_per_epoch` batches that can be repeated; padding weighs 0."""

    _kept: dict[Shard, tf.data.Dataset] = field(default_factory=dict)

    def batches(self, shard: Shard = (0, 1)) -> Iterator[Batch]:
        """This host's slice of every batch; all hosts get equally many."""
        if shard not in self._kept:
            steps = tf.data.Dataset.range(self.steps_per_epoch)
            data = self.plan.dataset(steps, shard, limit=self.info.num_examples)
            batch_bytes = sum(
                np.prod(shape) * dtype.itemsize for shape, dtype in self.spec.values()
            )
            if batch_bytes * self.steps_per_epoch <= _CACHE_BYTES:
                data = data.cache()
            self._kept[shard] = data
        return self.plan.iterate(self._kept[shard], 0, shard)


def _decode(image: tf.Tensor) -> tf.Tensor:
    """Encoded bytes -> (H, W, 3) uint8; pixels stay as they are."""
    if image.dtype != tf.string:
        return image
    decoded = tf.cond(
        tf.io.is_jpeg(image),
        # The default DCT is one level off PIL's pixels on average; this one is exact.
        lambda: tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(image, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(decoded, (None, None, 3))
