"""What could not be used, and what is to be done about it."""

import pathlib
import threading

from beit_jax.data.sources import DataError
from beit_jax.text import UTF8, one_line

POLICIES = ("error", "skip")


class Ledger:
    """Notes bad examples by their sentence.

    Under the policy "error" the first one ends the run. Under "skip" an example takes
    its place in the batch with weight 0, is listed here, and the run ends once all
    hosts together have met more than `max_share`. Nothing ever takes its place
    silently.
    """

    def __init__(self, policy: str, max_share: float, num_examples: int):
        """`max_share` of `num_examples` may be skipped.

        Raises:
          ValueError: no such policy.
        """
        if policy not in POLICIES:
            raise ValueError(
                f"data.on_bad={policy!r} must be one of {', '.join(POLICIES)}"
            )
        self._skip, self._share = policy == "skip", max_share
        self._most = max_share * num_examples
        self._lock = threading.Lock()
        self._file: pathlib.Path | None = None
        self._listed: set[str] = set()
        self.sentences: dict[int, str] = {}  # index -> what is wrong with it

    def write_to(self, path: pathlib.Path) -> None:
        """From now on appends every sentence that the file does not have yet."""
        self._file = path
        if path.exists():
            self._listed.update(path.read_text(**UTF8).splitlines())

    def note(self, index: int, sentence: str) -> None:
        """Raises DataError unless the example may be skipped."""
        sentence = one_line(sentence)
        with self._lock:
            self.sentences[index] = sentence
            if self._file and sentence not in self._listed:
                self._listed.add(sentence)
                with self._file.open("a", **UTF8) as file:
                    file.write(sentence + "\n")
        if not self._skip:
            raise DataError(
                f"{sentence}. data.on_bad='skip' goes on without such examples; "
                "python -m beit_jax.check_data finds all of them"
            )
        self.check(len(self.sentences), sentence)

    def check(self, skipped: int, last: str = "") -> None:
        """Raises DataError if so many, of one host or of all, are too many."""
        if skipped > self._most:
            last = last or "; ".join(list(self.sentences.values())[-1:])
            raise DataError(
                f"examples that cannot be used: {skipped}, data.max_bad={self._share} "
                f"allows {self._most:g}; the last: {last or 'on another host'}"
            )
