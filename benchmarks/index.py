"""What the index of a large source costs: `python benchmarks/index.py --examples N`.

Makes a .tar of N empty files that are called as ImageNet's are, and opens it as the
source "folder" does, twice: the first time finds the files, the second loads what was
kept of them. With --folder the files lie in a folder instead. Each opening is a process
of its own, which prints seconds, its peak of memory, and bytes an example that stay.
"""

import argparse
import gc
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_400_000)
    parser.add_argument("--folder", action="store_true")
    parser.add_argument("--open", help="a source to open in this process")
    args = parser.parse_args()
    if args.open:
        return opened(args.open)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "images" if args.folder else "images.tar")
        (make_folder if args.folder else make_tar)(path, args.examples)
        for what in ("found", "loaded"):
            print(f"{what}: ", end="", flush=True)
            subprocess.run([sys.executable, __file__, f"--open={path}"], check=True)


if __name__ == "__main__":
    main()
