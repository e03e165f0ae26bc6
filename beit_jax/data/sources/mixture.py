"""Several sources as one: mixed by weight in training, one after another else."""

import bisect
import fractions
import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from beit_jax.data.sources.base import Info, Record, Source, digest

_LONGEST_PERIOD = 1000


class Mixture(Source):
    """Training picks parts by weight; evaluation sees all parts, one after another.

    Training goes in periods: in each, every part has a fixed number of picks, spread at
    random over the period. Each part is shuffled by itself, and its examples come once
    in each of its own epochs, however short the epoch is beside the others'.
    """

    def __init__(
        self,
        parts: list,
        build: Callable[[Mapping[str, Any]], Source],
        weights: tuple = (),
        labels: bool = True,
    ):
        """Builds the parts.

        Args:
          parts: settings of sources, each with its `name`.
          build: makes a source of such settings.
          weights: the parts' shares of the training examples, of any sum; empty: by
            their numbers of examples. Shares are exact where a period of at most 1,000
            picks can make them so, else rounded to thousandths.
          labels: whether to keep the labels. Without them, parts may differ in their
            classes, which is enough for pre-training.

        Raises:
          ValueError: no parts, classes that differ, or weights that do not fit.
        """
        if not parts:
            raise ValueError("a mixture needs parts: a list of sources' settings")
        for part in parts:
            if isinstance(part, str):
                raise ValueError(
                    f"part {part!r} of a mixture must be a source's settings, such as "
                    f'{{"name": {part!r}}}'
                )
        self._parts = [build(part) for part in parts]
        infos = [part.info for part in self._parts]
        class_names = _shared_classes(infos) if labels else ()
        sizes = [info.num_examples for info in infos]
        self.info = Info(
            f"mixture of {', '.join(info.name for info in infos)}",
            sum(sizes),
            class_names,
            digest([f"labels {labels}"], np.array([info.digest for info in infos])),
        )
        self.notes = tuple(note for part in self._parts for note in part.notes)
        self.colours = self._parts[0].colours if labels else ()
        self.targets = _shared_targets(self._parts) if labels else ()
        self._labels = labels
        self._starts = [0, *itertools.accumulate(sizes)]
        self.picks = _picks(weights, sizes)

    def read(self, index: int) -> Record:
        part, inner = self._locate(index)
        record = self._parts[part].read(inner)
        return record if self._labels else Record(record.image)

    def describe(self, index: int) -> str:
        part, inner = self._locate(index)
        return self._parts[part].describe(inner)

    def label_counts(self) -> np.ndarray:
        return sum(part.label_counts() for part in self._parts)

    def _locate(self, index: int) -> tuple[int, int]:
        part = bisect.bisect_right(self._starts, index) - 1
        return part, index - self._starts[part]

    def order(self, seed: int, counter: Any) -> Any:
        """As `Source.order` says, but with epochs of the parts in place of one.

        A period's slots are numbered by part: first all picks of part 0, then those of
        part 1. Its counters show the slots in a random order. So a part's own counter
        is its picks in earlier periods plus the place of the slot among its slots.
        """
        from beit_jax.data import draws  # TensorFlow: only where it is drawn
        from beit_jax.data.graph import tf

        length = sum(self.picks)
        period = counter // length
        slots = draws.shuffled(counter % length, length, _derive(seed, "slots"), period)
        first, index = 0, tf.zeros_like(counter)
        for number, (part, picks) in enumerate(
            zip(self._parts, self.picks, strict=True)
        ):
            mine = (slots >= first) & (slots < first + picks)
            own = tf.where(mine, period * picks + slots - first, 0)
            inner = part.order(_derive(seed, f"part {number}"), own)
            index = tf.where(mine, self._starts[number] + inner, index)
            first += picks
        return index


def _shared_targets(parts: Sequence[Source]) -> tuple[str, ...]:
    targets = {part.info.name: part.targets for part in parts}
    if len(set(targets.values())) > 1:
        raise ValueError(f"parts of a mixture have different targets: {targets}")
    return parts[0].targets


def _derive(seed: int, purpose: str) -> int:
    return zlib.crc32(f"mixture {seed} {purpose}".encode())


def _shared_classes(infos: Sequence[Info]) -> tuple[str, ...]:
    first = infos[0]
    for info in infos:
        if info.class_names != first.class_names:
            raise ValueError(
                f"the parts {first.name} and {info.name} of a mixture have "
                f"{_brief(first.class_names)} and {_brief(info.class_names)}; they "
                "must have the same in the same order, or set labels=False to do "
                "without"
            )
    return first.class_names


def _brief(class_names: tuple[str, ...]) -> str:
    if not class_names:
        return "no classes"
    dots = ", ..." if len(class_names) > 3 else ""
    return f"{len(class_names)} classes ({', '.join(class_names[:3])}{dots})"


def _picks(weights: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """How often each part comes in a period; their sum is the period."""
    if not len(weights):
        return _lowest_terms(sizes)
    if len(weights) != len(sizes):
        raise ValueError(f"{len(weights)} weights for a mixture of {len(sizes)} parts")
    for weight in weights:
        if not (isinstance(weight, (int, float)) and 0 < weight < math.inf):
            raise ValueError(f"weight {weight!r} of a mixture must be a number above 0")
    # Fractions of what is written: 0.7 and 0.3 are 7 and 3 in 10, though not in binary.
    written = [fractions.Fraction(str(weight)) for weight in weights]
    exact = [weight / sum(written) for weight in written]
    scale = math.lcm(*(share.denominator for share in exact))
    if scale <= _LONGEST_PERIOD:
        return [int(share * scale) for share in exact]
    picks = _largest_remainder([share * _LONGEST_PERIOD for share in exact])
    if not min(picks):
        raise ValueError(
            f"weight {weights[picks.index(0)]} of a mixture is too small beside the "
            f"others: a part gets at least one of {_LONGEST_PERIOD} picks"
        )
    return _lowest_terms(picks)


def _largest_remainder(quotas: Sequence[fractions.Fraction]) -> list[int]:
    """Whole numbers near `quotas` with the same sum, which is whole."""
    picks = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: picks[i] - quotas[i])
    for i in by_remainder[: int(sum(quotas)) - sum(picks)]:
        picks[i] += 1
    return picks


def _lowest_terms(picks: Sequence[int]) -> list[int]:
    shared = math.gcd(*picks)
    return [count // shared for count in picks]
