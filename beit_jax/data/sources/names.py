"""Many names in little memory."""

import array
import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

_TOGETHER = 4096


class Names:
    """A list of texts in one text: 4 bytes a name beside its own, a list takes 100.

    Beyond 4 GiB of text 8 bytes.
    """

    def __init__(self, names: Iterable[str]):
        text, ends = bytearray(), array.array("q", [0])
        for name in names:
            text += name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        small = np.uint32 if len(text) < 2**32 else np.int64
        self._text, self._ends = memoryview(bytes(text)), np.array(ends, small)

    def packed(self) -> dict[str, np.ndarray]:
        """The same as arrays."""
        return {"names": np.frombuffer(self._text, np.uint8), "name_ends": self._ends}

    @classmethod
    def of_packed(cls, arrays: Mapping[str, np.ndarray]) -> "Names":
        """What `packed` gave, beside which there may be other arrays."""
        made = cls(())
        made._text, made._ends = memoryview(arrays["names"]), arrays["name_ends"]
        return made

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self._ends[index % len(self) :][:2]
        return str(self._text[start:end], "utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _TOGETHER):
            ends = self._ends[first : first + _TOGETHER + 1].tolist()
            for start, end in itertools.pairwise(ends):
                yield str(self._text[start:end], "utf-8", "surrogateescape")

    def find(self, name: str) -> int:
        """Where in sorted names `name` is; -1: it is not among them."""
        at = bisect.bisect_left(self, name)
        return at if at < len(self) and self[at] == name else -1
