"""Labels as they are given, by name or number, and the numbers that they stand for."""

import re
from collections.abc import Callable, Sequence

_MOST_CLASSES = 1_000_000  # beyond, a label is rather a mistake


def infer_names(labels: Sequence[int | str]) -> tuple[str, ...]:
    """Class names from all labels that occur: sorted names, or "0" to the largest."""
    number_of = {label: _as_number(label) for label in labels}
    if None not in number_of.values():
        largest = max(number_of.values(), default=-1)
        return tuple(map(str, range(min(largest + 1, _MOST_CLASSES))))
    numbers = [label for label in number_of if isinstance(label, int)]
    if numbers:
        name = next(label for label, number in number_of.items() if number is None)
        raise ValueError(
            f"labels are numbers ({numbers[0]}) and names ({name!r}); set class_names "
            "to say which is which"
        )
    return tuple(sorted(number_of))


def one_of(
    label_key: str, own: tuple[str, ...], given: tuple[str, ...]
) -> tuple[str, ...]:
    """The names that a label has itself, or those that a user gives it.

    Raises:
      ValueError: both, and they differ.
    """
    if own and given and own != given:
        raise ValueError(
            f"label {label_key!r} has its own {len(own)} class names; leave "
            "class_names empty"
        )
    return own or given


def _as_number(label: int | str) -> int | None:
    if isinstance(label, int):
        return label
    return int(label) if re.fullmatch(r"-?[0-9]{1,18}", label) else None


def numbering(class_names: tuple[str, ...]) -> Callable[[int | str], int]:
    """A function from a label as it is given to its number in [0, C)."""
    number_of = {name: number for number, name in enumerate(class_names)}

    def number(label: int | str) -> int:
        found = number_of.get(label, _as_number(label))
        if found is None:
            raise ValueError(
                f"label {label!r} is none of the {len(class_names)} classes "
                f"({', '.join(class_names[:5])}{', ...' * (len(class_names) > 5)})"
            )
        if not 0 <= found < len(class_names):
            raise ValueError(f"label {label!r} is outside [0, {len(class_names)})")
        return found

    return number
