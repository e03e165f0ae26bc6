"""One run at a time in a work directory."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import TextIO

NAME = ".lock"
# What a file system says that has no locks.
NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class Busy(ValueError):
    """Another run has the work directory."""

    exit_code = 75  # as after a signal: the same command can go on, later


class Lock:
    """That of a work directory.

    Attributes:
      notes: sentences about what a user should know.
    """

    def __init__(self, workdir: pathlib.Path, file: TextIO | None, notes: list[str]):
        self._workdir, self._file, self.notes = workdir, file, notes
        # Held open: no other folder gets its number, should it be deleted.
        self._folder = os.open(workdir, os.O_RDONLY) if file else None

    def check(self) -> None:
        """Raises OSError if the work directory is gone, or another one is there."""
        # By the folder: of a lock that cannot be had another run's end takes the file.
        if self._file and not _same(os.fstat(self._folder), self._workdir):
            raise FileNotFoundError(
                errno.ENOENT,
                "the work directory is gone, or another was put in its place; what "
                "was saved is where it went, and goes on from there",
                str(self._workdir),
            )

    def release(self) -> None:
        os.close(self._folder)
        if self._file and _is(self._file, self._workdir / NAME):  # nobody else's
            with contextlib.suppress(OSError):  # it holds nobody up, and a run may end
                (self._workdir / NAME).unlink()  # of an error that matters more


@contextlib.contextmanager
def locked(workdir: pathlib.Path, enabled: bool = True) -> Iterator[Lock]:
    """Makes the work directory and keeps other runs out of it.

    The lock dies with its holder, whatever ends it. What was made goes again if nothing
    has been put into it: a run that is refused leaves nothing.

    Args:
      enabled: one process of many takes the lock.

    Raises:
      Busy: another run has it.
    """
    made = [path for path in (workdir, *workdir.parents) if not path.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        if not enabled:
            yield Lock(workdir, None, [])
            return
        file, notes = _take(workdir)
        with file:
            lock = Lock(workdir, file, notes)
            try:
                yield lock
            except Exception:
                lock.check()  # a folder that is gone explains whatever else went wrong
                raise
            finally:
                lock.release()
    finally:
        with contextlib.suppress(OSError):  # the first one with something in it
            for path in made:
                path.rmdir()


def _take(workdir: pathlib.Path) -> tuple[TextIO, list[str]]:
    """The open file that is the lock, and what a user should know."""
    while True:
        file = (workdir / NAME).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Busy(
                f"another run is going on in {workdir}: {file.read()}. "
                "Wait for it or stop it, or name another workdir"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return file, [
                f"{workdir} cannot be locked ({error.strerror}): take care that no "
                "other run uses it"
            ]
        # Its last holder may have removed it since it was opened.
        if _is(file, workdir / NAME):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file, []
        file.close()


def _is(file: TextIO, path: pathlib.Path) -> bool:
    return _same(os.fstat(file.fileno()), path)


def _same(known: os.stat_result, path: pathlib.Path) -> bool:
    return path.exists() and os.path.samestat(path.stat(), known)
