"""Folders in a bucket (gs://, s3://), by fsspec, which Orbax's own paths stand on.

A store has no append, no rename and no locks: a file of it is written whole or not at
all. What wants more than that works on a copy on this machine.
"""

import contextlib
import errno
import hashlib
import pathlib
import posixpath
import tempfile
from collections.abc import Iterable, Iterator, Mapping

from beit_jax import cache
from beit_jax.text import one_line

# What tells two versions of a file apart, by the names that the libraries give it.
_VERSION = ("ETag", "etag", "generation", "created", "mtime", "size")
_PACKAGES = {"gs": "gs", "gcs": "gs", "s3": "s3"}  # what begins so -> our extra


def is_remote(path: str | pathlib.Path) -> bool:
    """Whether a path is in a store: "gs://bucket/run"."""
    return "://" in str(path)


def on_disk(path: str | pathlib.Path, what: str) -> pathlib.Path:
    """The path of what is written, which may not be in a store."""
    if is_remote(path):
        raise ValueError(
            f"{what} {str(path)!r} must be a path on this machine; copy what is there "
            "into the bucket, or mount it as a folder (gcsfuse, mountpoint-s3)"
        )
    return pathlib.Path(path).expanduser()


class Store:
    """The files below a folder in a bucket; names are relative to it.

    What the libraries raise comes as OSError, and names the folder.
    """

    def __init__(self, url: str):
        """Raises ValueError where no library is here for what `url` begins with."""
        import fsspec  # takes longer than all of this module

        self.url = url.rstrip("/")
        try:
            self._files, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            kind = url.partition("://")[0]
            extra = _PACKAGES.get(kind)
            way_out = f": pip install 'beit_jax[{extra}]'" if extra else ""
            raise ValueError(
                f"{url!r} cannot be reached ({one_line(str(error))}){way_out}"
            ) from error
        self._root = root.rstrip("/")

    def versions(self) -> dict[str, str]:
        """Name -> version of all files, as they are now; {"": version} of a file."""
        with _told(self.url):
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        start = len(self._root) + 1
        return {
            path[start:]: repr([facts.get(key) for key in _VERSION])
            for path, facts in sorted(found.items())
            if not path.endswith("/")  # what consoles make to show a folder
        }

    def matching(self, pattern: str) -> list[str]:
        """Names of files that match, by * and ?, sorted."""
        with _told(self.url):
            self._files.invalidate_cache()
            found = self._files.glob(self._path(pattern))
        return sorted(path[len(self._root) + 1 :] for path in found)

    def read(self, name: str) -> bytes:
        with _told(self.url):
            return self._files.cat_file(self._path(name))

    def write(self, name: str, data: bytes) -> None:
        with _told(self.url):
            self._files.pipe_file(self._path(name), data)

    def get(self, names: Iterable[str], folder: pathlib.Path) -> None:
        """Copies files into a folder on this machine, below which they keep names.

        Raises:
          ValueError: a name that leads out of the folder.
        """
        here = {self._path(name): folder / _inside(name) for name in names}
        for path in here.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with _told(self.url):
            if here:
                self._files.get([*here], [*map(str, here.values())])

    def put(self, folder: pathlib.Path, names: Iterable[str]) -> None:
        """Copies files out of a folder on this machine, in any order."""
        here = {self._path(name): str(folder / name) for name in names}
        with _told(self.url):
            if here:
                self._files.put([*here.values()], [*here])

    def remove(self, names: Iterable[str]) -> None:
        """One after the other; what is not there need not be removed."""
        for name in names:
            with contextlib.suppress(FileNotFoundError), _told(self.url):
                self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def copied(url: str, names: Mapping[str, str] | None = None) -> pathlib.Path:
    """A copy on this machine of a file in a store, or of some files of a folder.

    It is kept in the cache folder, and serves again while those in the store are the
    same.

    Args:
      names: name -> version, see `Store.versions`; None: `url` is a file.

    Returns:
      The path of the file or the folder, called as it is in the store.

    Raises:
      ValueError: there is no such file.
    """
    store = Store(url)
    if names is None:
        names = {"": store.versions().get("", "")}
        if not names[""]:
            raise ValueError(f"there is no file {url!r}")
    told = "\0".join([store.url, *map(": ".join, sorted(names.items()))])
    key = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:32]
    place, called = cache.folder() / "copied" / key, posixpath.basename(store.url)
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = {"dir": place.parent, "prefix": f".{key}-"}
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True, **beside) as new:
            made = pathlib.Path(new, "made")
            store.get(names, made / called)
            try:
                made.rename(place)
            except OSError:
                if not place.is_dir():  # else another process was first
                    raise
    return place / called


def _inside(name: str) -> str:
    """A name in a store may be any text; this one is below its folder."""
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(
            f"{name!r} leads out of its folder; it is not copied from there"
        )
    return name


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Makes one kind of error of what many libraries raise."""
    try:
        yield
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, f"no {one_line(str(error))}", url) from error
    except Exception as error:  # of another library for each kind of store
        number = getattr(error, "errno", None) or errno.EIO
        words = one_line(str(error)) or type(error).__name__
        raise OSError(number, f"the store does not serve: {words}", url) from error
