"""Streams of batches: draw -> read and make views -> batch -> mask -> prefetch.

A position in the data is one integer. Batch k holds the examples with global counters
[k * B, (k + 1) * B), and everything about an example follows from (seed, counter): so
seeking is free, and hosts only divide the work.
"""

import functools
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL

from beit_jax.data import sources
from beit_jax.data.annotations import stored_fields
from beit_jax.data.batches import Batch, Batches, Shard, Spec, train_only
from beit_jax.data.graph import tf
from beit_jax.data.kept import Kept
from beit_jax.data.ledger import Ledger
from beit_jax.stores import on_disk


def train_stream(
    config: Mapping[str, Any], example_spec: Mapping[str, Any], seed: int
) -> "Stream":
    """Endless, shuffled, augmented batches of `config["source"]`.

    Args:
      config: a run's `config.data`.
      example_spec: name -> shape and dtype of one example, as a task declares it:
        image, and what else of batches.dtypes() it needs.
      seed: of the run.

    Raises:
      ValueError: the source, the settings and the spec do not go together.
    """
    source = sources.build(config["source"])
    plan = Batches(source, config, dict(example_spec), seed, training=True)
    return Stream(plan, max(1, source.info.num_examples // plan.batch_size))


def eval_stream(
    config: Mapping[str, Any],
    example_spec: Mapping[str, Any],
    seed: int,
    source: sources.Source | None = None,
    again: bool = True,
) -> "EvalStream":
    """Every example of `config["eval_source"]` once, in order, not augmented.

    `config["eval_frame"]` cuts it out; its mask is the same in every pass. Other
    arguments and errors are those of `train_stream`.

    Args:
      source: instead of `config["eval_source"]`.
      again: there will be a second pass; for one alone nothing is kept in memory.
    """
    source = source or sources.build(config["eval_source"])
    spec = {k: form for k, form in example_spec.items() if k not in train_only()}
    plan = Batches(source, config, spec, seed, training=False)
    steps = (source.info.num_examples - 1) // plan.batch_size + 1
    return EvalStream(plan, steps, again)


@dataclass(frozen=True)
class _Stream:
    plan: Batches
    steps_per_epoch: int

    @property
    def info(self) -> sources.Info:
        return self.plan.source.info

    @property
    def notes(self) -> tuple[str, ...]:
        """What the source found and left out."""
        return self.plan.source.notes

    @property
    def ledger(self) -> Ledger:
        """What could not be used so far."""
        return self.plan.ledger

    @property
    def spec(self) -> Spec:
        """Name -> (global shape with batch axis, dtype)."""
        return self.plan.spec

    def index(self, step: int) -> np.ndarray:
        """(B,) int64 examples of batch `step` in the source, of all hosts; -1: none."""
        return self.plan.draw(self.plan.counters(step, (0, 1)))[0].numpy()


class Stream(_Stream):
    """Endless training batches.

    The example counter runs on from epoch to epoch, so no example is dropped;
    `steps_per_epoch` counts the whole batches in one, and is at least 1.
    """

    def batches(self, first_step: int = 0, shard: Shard = (0, 1)) -> Iterator[Batch]:
        """This host's slice of batch `first_step` and of all that follow."""
        return self.plan.iterate(tf.data.Dataset.counter(first_step), shard)


@dataclass(frozen=True)
class EvalStream(_Stream):
    """A pass of `steps_per_epoch` batches that can be repeated; padding weighs 0.

    Kept after the first pass: in memory if they are few and needed `again`, or in the
    folder `data.eval_cache`.
    """

    again: bool = True
    _kept: dict[Shard, Kept] = field(default_factory=dict)

    def batches(self, shard: Shard = (0, 1)) -> Iterator[Batch]:
        """This host's slice of every batch; all hosts get equally many."""
        if shard not in self._kept:
            self._kept[shard] = self._kept_pass(shard)
        return self._kept[shard].batches()

    def spread(self, count: int, shard: Shard = (0, 1)) -> Batch:
        """A slice of a batch that has `count` examples from all over, and padding.

        They come first; of a source in the order of its classes they show several.
        """
        examples, share = self.info.num_examples, self.plan.batch_size // shard[1]
        count = min(count, examples, share)
        counter = np.full(share, examples)
        counter[:count] = (2 * np.arange(count) + 1) * examples // (2 * count)
        return self.plan.chosen(counter)

    def _content(self) -> int:
        """CRC-32 of all that is stored: names do not tell of files written anew."""

        def one(index: int) -> int:
            try:
                return crc32_of(self.plan.source.read(index))
            except sources.BadExample:
                return 0

        with ThreadPoolExecutor() as threads:
            crcs = list(threads.map(one, range(self.info.num_examples)))
        return zlib.crc32(np.array(crcs, np.uint32).tobytes())

    def _kept_pass(self, shard: Shard) -> Kept:
        plan = self.plan
        config = dict(plan.config)
        folder = config.pop("eval_cache", "")
        for other in (
            "source",
            "frame",
            "decoded_cache_gib",
        ):  # do not change the pixels
            config.pop(other, None)
        told = [config, plan.spec, plan.seed, self.info, shard, PIL.__version__]
        told.append(self._content() if folder else 0)
        text = json.dumps(told, default=_plain, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        spec = {
            key: ((shape[0] // shard[1], *shape[1:]), dtype)
            for key, (shape, dtype) in self.spec.items()
        }
        return Kept(
            lambda: plan.iterate(tf.data.Dataset.range(self.steps_per_epoch), shard),
            spec,
            self.steps_per_epoch,
            on_disk(folder, "data.eval_cache") / f"eval-{name}" if folder else None,
            self.again,
        )


def _plain(value: Any) -> Any:
    """What JSON does not know: sections of a config, dtypes."""
    return value.to_dict() if hasattr(value, "to_dict") else str(value)


def crc32_of(record: sources.Record) -> int:
    """Of all that makes a difference to a batch."""
    return functools.reduce(_crc32, map(record.get, stored_fields()), 0)


def _crc32(start: int, stored: Any) -> int:
    """Of bytes, an array, a number, nothing, or several of these."""
    if isinstance(stored, (list, tuple)):
        return functools.reduce(_crc32, stored, start)
    if not isinstance(stored, bytes):
        stored = b"" if stored is None else np.asarray(stored).tobytes()
    return zlib.crc32(stored, start)
