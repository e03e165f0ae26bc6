"""Names of files within a folder or an archive: what they may be, what to ignore."""

import posixpath


def inside(name: str) -> str:
    """`name` without ./ and doubled or leading slashes, relative to its root.

    Raises:
      ValueError: it leads out of the root.
    """
    clean = posixpath.normpath(name).lstrip("/")
    if clean == ".." or clean.startswith("../"):
        raise ValueError(f"{name!r} leads out of its folder")
    return clean or "."


def is_hidden(name: str) -> bool:
    """Whether a part of `name` is what systems leave beside the files one means.

    macOS puts ._name.jpg beside name.jpg, or a folder __MACOSX into an archive.
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
