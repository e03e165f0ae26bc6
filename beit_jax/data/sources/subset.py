"""Which examples of a data set to keep: the options that its sources share."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_HELD_OUT = 10  # one of so many, unless a part says it


class Subset(NamedTuple):
    """Random or systematic parts of a data set; the default is all of it.

    Attributes:
      part: "test" is every tenth example in order, "train" all others: for data
        without splits of its own; "test/3" and "train/3" hold out every third, and so
        on. The rest is drawn within the part.
      limit: keep at most this many random examples in all; 0 = all.
      labels_per_class: keep this many random examples of each class; 0 = all.
      seed: chooses them.
    """

    part: str = ""
    limit: int = 0
    labels_per_class: int = 0
    seed: int = 0

    def keep(
        self,
        count: int,
        labels_of: Callable[[np.ndarray], np.ndarray] | None,
        class_names: Sequence[str] = (),
    ) -> np.ndarray:
        """Sorted indices of the examples to keep of `count`.

        Args:
          labels_of: indices -> their labels, called only for `labels_per_class`; None
            when there are no labels.
          class_names: for messages.

        Raises:
          ValueError: options that contradict each other or the data.
        """
        if min(self.limit, self.labels_per_class) < 0:
            raise ValueError(
                f"limit={self.limit} and labels_per_class={self.labels_per_class} "
                "must be at least 0, which keeps all"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"subset_seed={self.seed} must be in 0..{2**32 - 1}")
        if self.labels_per_class and self.limit:
            raise ValueError("give labels_per_class or limit, not both")
        mine = _part(count, self.part)
        if self.labels_per_class:
            if labels_of is None:
                raise ValueError(
                    f"labels_per_class={self.labels_per_class} needs class folders or "
                    "labels; there are none. Use limit to keep fewer examples"
                )
            labels, few = labels_of(mine), self.labels_per_class
            return mine[few_per_class(labels, few, self.seed, class_names)]
        if not self.limit:
            return mine
        order = np.random.RandomState(self.seed).permutation(len(mine))
        return mine[np.sort(order[: self.limit])]


def few_per_class(
    labels: np.ndarray, count: int, seed: int, class_names: Sequence[str] = ()
) -> np.ndarray:
    """Sorted indices of `count` random examples of each class.

    For one seed, the choice for a smaller count is part of that for a larger one.

    Raises:
      ValueError: a class has fewer examples.
    """
    # RandomState, because numpy promises that its numbers never change.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = []
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if len(members) < count:
            name = repr(class_names[label]) if class_names else label
            raise ValueError(
                f"labels_per_class={count}, but class {name} has {len(members)} images"
            )
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def _part(count: int, part: str) -> np.ndarray:
    """Sorted indices of a part of `count` examples."""
    form = re.fullmatch(r"(train|test)(?:/([1-9][0-9]{0,8}))?", part)
    every = int(form[2] or _HELD_OUT) if form else 0
    if part and every < 2:
        raise ValueError(
            f"part={part!r} must be train, test or empty; train/3 and test/3 hold out "
            "every third"
        )
    held = np.arange(count) % every == every - 1 if part else np.zeros(count, bool)
    mine = np.flatnonzero(held if part.startswith("test") else ~held)
    if not len(mine):
        raise ValueError(f"{count} images are too few to hold out one of {every}")
    return mine
