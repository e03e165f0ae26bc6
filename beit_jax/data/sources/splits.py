"""Folders that are splits of a data set, told by their names."""

import os
from collections.abc import Iterable, Sequence

# What training is called, and what is held out: the first is taken where several are.
TRAINS = ("train", "training")
TESTS = ("test", "testing", "val", "valid", "validation")


def common_folder(names: Sequence[str]) -> str:
    """The start that all of the sorted `names` share, up to and with a slash."""
    shared = os.path.commonprefix([names[0], names[-1]])
    return shared[: shared.rfind("/") + 1]


def splits_of(names: Sequence[str]) -> list[str]:
    """Folders of the first level if all are splits and there are two or more; sorted.

    `names` are those of files, sorted; the first level is below what all share.
    """
    shared = common_folder(names)
    below = (name[len(shared) :].partition("/") for name in names)
    first = {folder if slash else "" for folder, slash, _ in below}
    known = len(first) > 1 and {name.lower() for name in first} <= {*TRAINS, *TESTS}
    return sorted(first) if known else []


def pick(there: Iterable[str], known: Sequence[str]) -> str:
    """The one of the folders `there` whose name comes first in `known`; "" if none."""
    found = [name for name in there if name.lower() in known]
    return min(found, key=lambda name: known.index(name.lower()), default="")


def notes(root: str, there: Sequence[str]) -> tuple[str, ...]:
    """A sentence where splits are taken together, and how to take one."""
    if not there:
        return ()
    return (
        f"{root}: {', '.join(there)} are splits by their names, and are taken "
        f"together; for one of them give its folder ({root}/{there[0]}) or "
        f"split={there[0]!r} (--config.data.source.split)",
    )
