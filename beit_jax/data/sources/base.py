"""What a source of examples is: facts about it, and examples read by index."""

import collections
import contextlib
import itertools
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class DataError(ValueError):
    """Data that cannot be used; a command that it ends exits with this code."""

    exit_code = 65


class BadExample(DataError):
    """One example that cannot be used."""


class Info(NamedTuple):
    """Facts about a source.

    Attributes:
      class_names: empty when there are no labels.
      digest: CRC-32 of the examples' names and labels in order. Checkpoints record it,
        and a resume on other data is refused.
    """

    name: str
    num_examples: int
    class_names: tuple[str, ...]
    digest: int


def check_unique(class_names: Sequence[str], used: Collection[str]) -> None:
    """Raises ValueError when a name that is used is that of several classes.

    As two of ImageNet's are called crane; which of them is meant, nobody could tell.
    """
    for name, count in collections.Counter(class_names).items():
        if count > 1 and name in used:
            raise ValueError(
                f"class_names has {name!r} {count} times: which of them images of "
                f"{name!r} are, cannot be told; name them apart"
            )


def difference(one: Info, other: Info) -> str:
    """How the classes of two sources differ, in words; empty: they do not."""
    names, others = one.class_names, other.class_names
    if names == others:
        return ""
    if apart := sorted(set(names) ^ set(others)):
        return f"{one.name} and {other.name} have different classes: {apart[:12]}"
    return (
        f"{one.name} and {other.name} have the same classes in another order: "
        f"{', '.join(names[:12])}, and {', '.join(others[:12])} (folders are sorted as "
        "texts, 10 before 2); give both the same class_names"
    )


class Record(NamedTuple):
    """One example as it is stored; what a source does not have is None.

    Attributes:
      image: an encoded image, or (H, W, 3) uint8.
      label: in [0, C).
      label_map: an encoded image of one channel, or (H, W) integers; or a LabelMap of
        label_maps.py, which tells what they mean.
      boxes: (M, 4) float32 top, left, bottom, right in pixels.
      classes: (M,) int32, those of the boxes.
      masks: of the boxes' objects, (M, H, W) uint8 or bool, or M encoded images of one
        channel; what is not 0 belongs to the object.
      more: name -> array or bytes of what else a source stores: of several labels
        "labels", (K,) int32 in [0, C); of numbers "numbers", (T,) float32.
    """

    image: bytes | np.ndarray
    label: int | None = None
    label_map: bytes | np.ndarray | tuple | None = None
    boxes: np.ndarray | None = None
    classes: np.ndarray | None = None
    masks: np.ndarray | Sequence[bytes] | None = None
    more: Mapping[str, Any] = MappingProxyType({})

    def get(self, field: str) -> Any:
        """A field by its name, those in `more` too; None if there is none."""
        return getattr(self, field) if field in self._fields else self.more.get(field)


class Source:
    """Examples that can be read by index; the pipeline shuffles and decodes.

    Attributes:
      notes: sentences on what was found and left out.
      targets: names of the numbers in a record's `more["numbers"]`, (T,) float32.
      colours: of the classes in a picture of a label map, (r, g, b) each; empty: any.
    """

    info: Info
    notes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()

    def read(self, index: int) -> Record:
        """Example `index` in [0, num_examples). Many threads may read at once.

        Raises:
          BadExample: it is missing, damaged or has an impossible label.
        """
        raise NotImplementedError

    def describe(self, index: int) -> str:
        """The example's name in messages: its file, say."""
        raise NotImplementedError

    def label_counts(self) -> np.ndarray:
        """(C,) int64, how many examples have each label, one or several each.

        Reads all of them, unless a source knows better; bad ones do not count.

        Raises:
          ValueError: they have no labels; those of pixels are not counted.
        """
        counts = np.zeros(len(self.info.class_names), np.int64)
        for index in range(self.info.num_examples):
            with contextlib.suppress(BadExample):
                record = self.read(index)
                several = record.get("labels")
                labels = record.label if several is None else several
                if labels is None:
                    raise ValueError(f"{self.info.name} has no labels to be counted")
                counts[labels] += 1
        return counts

    def order(self, seed: int, counter: Any) -> Any:
        """Which examples the training counters show, in graph mode.

        Every epoch is another permutation of all examples.

        Args:
          seed: of the run.
          counter: () or (B,) int64, examples since the start of training.

        Returns:
          Like `counter`, indices of examples.
        """
        from beit_jax.data import draws  # TensorFlow: only where it is drawn

        count = self.info.num_examples
        epoch = counter // count
        return draws.shuffled(counter % count, count, seed, epoch=epoch)


def digest(names: Iterable[str], labels: np.ndarray) -> int:
    """CRC-32 of names, with zero bytes between, and labels in their order."""
    names, code, between = iter(names), 0, ""
    while some := list(itertools.islice(names, 4096)):
        words = between + "\0".join(some)
        code, between = zlib.crc32(words.encode("utf-8", "surrogateescape"), code), "\0"
    return zlib.crc32(np.asarray(labels, "<i8").tobytes(), code)
