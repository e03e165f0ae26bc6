"""What the index of a large source costs: `python -m benchmarks.index --examples N`.

Makes a .tar of N empty files that are called as ImageNet's are, and opens it as the
source "folder" does, twice: the first time finds the files, the second loads what was
kept of them. With --folder the files lie in a folder instead. Each opening is a process
of its own, which prints seconds, its peak of memory, and bytes an example that stay.
"""

import gc
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator

from absl import app, flags

EXAMPLES = flags.DEFINE_integer("examples", 1_400_000, "files")
FOLDER = flags.DEFINE_bool("folder", False, "lie in a folder, not in a .tar")
OPEN = flags.DEFINE_string("open", "", "a source to open in this process")

_CLASSES = 21_841


def names(count: int) -> Iterator[str]:
    """As ImageNet-22k's, not sorted."""
    for number in range(count):
        synset = f"n{1_440_764 + 577 * (number % _CLASSES):08d}"
        yield f"{synset}/{synset}_{number // _CLASSES * 17 % 99_999}.JPEG"


def make_tar(path: pathlib.Path, count: int) -> None:
    with path.open("wb") as file:
        for name in names(count):
            file.write(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(tarfile.RECORDSIZE))


def make_folder(path: pathlib.Path, count: int) -> None:
    for name in names(count):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()


def resident() -> int:
    """Bytes of this process's memory."""
    gc.collect()
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def opened(path: str) -> None:
    from beit_jax.data.sources.folder import Folder

    before, start = resident(), time.perf_counter()
    source = Folder(path)
    seconds, count = time.perf_counter() - start, source.info.num_examples
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    each = (resident() - before) / count
    print(
        f"{count} examples: {seconds:.1f} s, {each:.0f} bytes each, "
        f"peak {peak / 2**30:.2f} GiB"
    )


def main(_) -> None:
    if OPEN.value:
        return opened(OPEN.value)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "images" if FOLDER.value else "images.tar")
        (make_folder if FOLDER.value else make_tar)(path, EXAMPLES.value)
        for what in ("found", "loaded"):
            print(what, flush=True)
            command = [sys.executable, "-m", "benchmarks.index", "--open", str(path)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    app.run(main)
