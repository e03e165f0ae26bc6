"""Many names in little memory."""

import array
import bisect
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

_TOGETHER = 4096


class Names:
    """A list of texts in one text: 8 bytes a name beside its own, a list takes 100."""

    def __init__(self, names: Iterable[str]):
        text, ends = bytearray(), array.array("q", [0])
        for name in names:
            text += name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        self._text, self._ends = bytes(text), np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self._ends[index % len(self) :][:2]
        return self._text[start:end].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _TOGETHER):
            ends = self._ends[first : first + _TOGETHER + 1].tolist()
            for start, end in itertools.pairwise(ends):
                yield self._text[start:end].decode("utf-8", "surrogateescape")

    def find(self, name: str) -> int:
        """Where in sorted names `name` is; -1: it is not among them."""
        at = bisect.bisect_left(self, name)
        return at if at < len(self) and self[at] == name else -1
