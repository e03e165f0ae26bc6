"""Which files are images, told by their names; and what is left out for its name."""

import collections
import posixpath
from collections.abc import Sequence

from beit_jax.text import one_line

# Formats by Pillow's names -> how files of them are called.
FORMATS = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpeg", ".jpg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = tuple(suffix for names in FORMATS.values() for suffix in names)
# Pictures and films of kinds that are not read here.
UNREAD = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k"),  # compressed anew
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),  # raw
    *(".psd", ".xcf", ".svg", ".eps", ".ai", ".pdf", ".exr", ".hdr", ".tga", ".ico"),
    *(".dcm", ".nii", ".fits", ".npy"),  # of science
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"),
)
_SHOWN = 12  # suffixes or folders that are named


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image that can be read."""
    return name.lower().endswith(SUFFIXES)


class Choice:
    """Says of names whether they are chosen; counts what is left out as no image."""

    def __init__(self, split: str = ""):
        """Chooses what lies below a folder called `split`; empty: everywhere."""
        self._split = split
        self._left = collections.Counter()  # by suffix
        self._folders: set[str] = set()  # of what is left out

    def __call__(self, name: str) -> bool:
        folder, file = posixpath.split(name)
        if self._split and self._split not in folder.split("/"):
            return False
        if is_image(name):
            return True
        self._left[posixpath.splitext(file)[1].lower() or "no suffix"] += 1
        self._folders.add(folder)
        return False

    def notes(self, root: str, chosen: Sequence[str]) -> tuple[str, ...]:
        """Sentences on what is left out beside the `chosen` names."""
        if not self._left:
            return ()
        left = self._left.total()
        counts = [f"{suffix} {n}" for suffix, n in self._left.most_common()]
        told = (
            f"{root}: {left} of {left + len(chosen)} files are left out, which by "
            f"their names are no images that can be read: {_brief(counts)}",
        )
        if unread := {s: n for s, n in self._left.most_common() if s in UNREAD}:
            kinds = ", ".join(f"{suffix} {n}" for suffix, n in unread.items())
            told += (
                f"{root}: {sum(unread.values())} pictures or films are of kinds that "
                f"are not read, and so not used: {kinds}; save them as JPEG or PNG",
            )
        with_images = set(map(posixpath.dirname, chosen))
        if without := sorted(self._folders - with_images - {""}):
            told += (
                f"{root}: folders without any image that can be read, and so without "
                f"a class: {_brief(without)}",
            )
        return tuple(map(one_line, told))


def _brief(words: list[str]) -> str:
    return ", ".join(words[:_SHOWN]) + ", …" * (len(words) > _SHOWN)
