"""Names of files within a folder or an archive: what they may be, what to ignore."""

import posixpath

# Thumbnails, deleted files and settings, by the names that systems give them.
LEFT_BEHIND = {
    "__MACOSX",  # in archives made by macOS
    *("@eaDir", "#recycle", "#snapshot"),  # Synology
    *("@Recycle", "@Recently-Snapshot"),  # QNAP
    *("$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini"),
    "lost+found",
}


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

    macOS puts ._name.jpg beside name.jpg; others put whole folders, see LEFT_BEHIND.
    """
    return any(part.startswith(".") or part in LEFT_BEHIND for part in name.split("/"))
