"""Where a run keeps its files: a folder, or a bucket through a copy of it here.

A store has no append, no rename and no locks, which a run needs. So of one in a bucket
all files lie in a folder on this machine, where every guarantee of one holds, and that
is copied to the bucket, where what is read first is written last:

  checkpoints/STEP/…                  when the step is committed here
  checkpoints/STEP/commit_success.txt after all of the step's other files
  what is gone here                   is removed after that, commit_success.txt first
  .run                                who writes: the last run that began here
"""

import contextlib
import os
import pathlib
import posixpath
import re
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator

import jax

from beit_jax import stores
from beit_jax.checkpoints.hashes import COMMITTED
from beit_jax.checkpoints.steps import tell
from beit_jax.stores import Store
from beit_jax.text import utf8

OWNER = ".run"
EVERY_SECONDS = 30  # between two looks at what is new

_STEP = re.compile(r"checkpoints/\d+/")
_FOR_NOW = re.compile(r"(^|/)\.|\.new$|orbax-checkpoint-tmp")  # locks, drafts


class Place:
    """A folder.

    Attributes:
      folder: on this machine, with the files of the run.
      notes: sentences about what a user should know.
    """

    def __init__(self, folder: pathlib.Path, notes: tuple[str, ...] = ()):
        self.folder, self.notes = folder, [*notes]

    def __str__(self) -> str:
        return str(self.folder)

    def take(self) -> None:
        """Makes the place this run's; until then nothing in it is changed."""

    def check(self) -> None:
        """Raises what makes it senseless to go on; does not wait."""


class Taken(ValueError):
    """Another run has begun in the same place."""


class Mirror(Place):
    """A folder that is copied to a bucket in the background."""

    def __init__(self, store: Store, folder: pathlib.Path):
        """Brings here what is there."""
        note = (
            f"works in {folder}, and copies that to {store.url} every "
            f"{EVERY_SECONDS} s and at the end; a bucket cannot be locked: a run that "
            "begins there takes it from one that goes on"
        )
        super().__init__(folder, (note,))
        self._store, self._taken = store, None
        self._name = f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4()}"
        found = store.versions().keys()
        there = {name for name in found if not _is_for_now(name)}
        whole = [name for name in there if not _is_cut_short(name, there)]
        store.get(whole, folder)
        # Name -> size and time of change, as they were when they were the same there.
        self._same = dict.fromkeys(there, None) | {n: self._stamp(n) for n in whole}
        self._ending, self._thread = threading.Event(), None

    def __str__(self) -> str:
        return self._store.url

    def take(self) -> None:
        self._store.write(OWNER, self._name.encode())
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._taken:
            raise Taken(str(self._taken))

    def close(self) -> None:
        """Copies the rest and lets go of the place; raises what keeps it from that."""
        if not self._thread:
            return
        self._ending.set()
        self._thread.join()
        self.check()
        self.send()
        self._store.remove([OWNER])

    def _go_on(self) -> None:
        while not self._ending.wait(EVERY_SECONDS):
            try:
                self.send()
            except Taken as error:
                self._taken = error
                return
            except OSError as error:
                tell(f"note: {error.filename}: {error.strerror}; it is tried again")

    def send(self) -> None:
        """Makes the bucket what the folder is.

        Raises:
          Taken: it is another run's now.
          OSError: the store does not serve.
        """
        here = self._names()  # first: what is told of a step is written before it
        self._hold()
        new = {
            name: stamp for name, stamp in here.items() if stamp != self._same.get(name)
        }
        steps = {found[0] for name in new if (found := _STEP.match(name))}
        for name in sorted(name for name in new if not _STEP.match(name)):
            self._send_now(name)
        for step in sorted(steps, key=lambda step: int(step.split("/")[1])):
            self._send_step({n: s for n, s in new.items() if n.startswith(step)})
        if gone := self._same.keys() - here.keys():
            self._hold()
            self._store.remove(sorted(gone, key=lambda name: not _commits(name)))
            for name in gone:
                del self._same[name]

    def _send_now(self, name: str) -> None:
        """A file as it is at this moment; one more line may come at any time."""
        with contextlib.suppress(FileNotFoundError):
            stamp = self._stamp(name)
            if name.startswith("checkpoints/"):  # large, set aside for its damage
                self._store.put(self.folder, [name])
            else:
                self._store.write(name, (self.folder / name).read_bytes())
            self._same[name] = stamp

    def _send_step(self, new: dict[str, tuple[int, int]]) -> None:
        commits = [name for name in new if _commits(name)]
        try:
            self._store.put(self.folder, [n for n in new if n not in commits])
            self._hold()
            self._store.put(self.folder, commits)
        except OSError:
            if all((self.folder / name).exists() for name in new):
                raise
            new = dict.fromkeys(new)  # deleted meanwhile, and soon there too
        self._same |= new

    def _hold(self) -> None:
        """Raises Taken if it is another run's by now."""
        owner = ", and is over"
        with contextlib.suppress(FileNotFoundError):
            owner = f": {self._store.read(OWNER).decode()}"
        if owner != f": {self._name}":
            raise Taken(
                f"another run has begun in {self._store.url}{owner}. Only one may go "
                f"on, and this one ends; what it did last is in {self.folder}"
            )

    def _names(self) -> dict[str, tuple[int, int]]:
        """Of what is to be in the bucket by now, name -> size and time of change."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        names = {path.relative_to(self.folder).as_posix() for path in paths}
        found = {}
        for name in sorted(names):
            if not _is_for_now(name) and not _is_cut_short(name, names):
                with contextlib.suppress(FileNotFoundError):
                    found[name] = self._stamp(name)
        return found

    def _stamp(self, name: str) -> tuple[int, int]:
        stat = (self.folder / name).stat()
        return stat.st_size, stat.st_mtime_ns


def _is_for_now(name: str) -> bool:
    return bool(_FOR_NOW.search(name)) and not _STEP.match(name)


def _commits(name: str) -> bool:
    step = _STEP.match(name)
    return bool(step) and name == step[0] + COMMITTED


def _is_cut_short(name: str, names) -> bool:
    """Whether a file is of a step that is not committed."""
    step = _STEP.match(name)
    return bool(step) and step[0] + COMMITTED not in names


@contextlib.contextmanager
def placed(workdir: str | pathlib.Path) -> Iterator[Place]:
    """The work directory of a run, which need not be there.

    Raises:
      ValueError: a name that Orbax cannot write to, or a bucket that several processes
        are to work in.
    """
    if not stores.is_remote(workdir):
        workdir = pathlib.Path(workdir).expanduser().resolve()
    if utf8(str(workdir)) != str(workdir):
        raise ValueError(
            f"the work directory {str(workdir)!r} must have a name in UTF-8: Orbax "
            "writes checkpoints to no other"
        )
    if isinstance(workdir, pathlib.Path):
        yield Place(workdir)
        return
    if jax.process_count() > 1:
        raise ValueError(
            f"the work directory {str(workdir)!r} of several processes must be a path "
            "that all of them see; mount the bucket as a folder (gcsfuse, "
            "mountpoint-s3) and name that"
        )
    store = Store(str(workdir))
    scratch = tempfile.mkdtemp(prefix="beit_jax_")
    folder = pathlib.Path(scratch, posixpath.basename(store.url))
    folder.mkdir()
    try:
        mirror = Mirror(store, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    try:
        yield mirror
    finally:
        try:
            mirror.close()
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; what was not copied there is in {folder}",
                error.filename,
            ) from error
        shutil.rmtree(scratch, ignore_errors=True)
