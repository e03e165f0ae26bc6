"""Damages a run's newest step in every way; counts what a restart makes of it.

python benchmarks/faults/bits.py [--flips 60] [--seed 0] [--config FILE[:ARG]]

A short run saves two steps. Then, each time in a fresh copy of its work directory, the
newer one is damaged: a random bit is flipped in its arrays, in its texts (config,
position, card), in what Orbax and we write about them; every file is cut to its half,
and deleted. A restart must name the file, set the step aside and have the older one,
bit for bit; whoever asks for the weights must be refused. Only where nothing but the
commit is gone, a restart must find all files right and go on with the newer one.
"""

import argparse
import pathlib
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from beit_jax import config as config_lib
from beit_jax import sharding, tasks
from beit_jax.checkpoints.hashes import COMMITTED
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.checkpoints.steps import find_step, restore_params
from beit_jax.config import Plan
from beit_jax.data import pipeline
from beit_jax.run import state as state_lib
from beit_jax.run.whole import whole
from beit_jax.train import train

ROOT = pathlib.Path(__file__).parents[2]
Damage = tuple[str, str, Callable[[pathlib.Path], None]]  # kind, file, what is done


def recipe(name: str):
    """The config of `FILE[:ARG]`, for four steps of which two are saved."""
    file, _, argument = name.partition(":")
    config = config_lib.load(file, argument)
    config.steps, config.checkpoint.every_steps, config.checkpoint.keep = 4, 2, 2
    config.optim.ema_decay = 0.9
    return config


class Restart:
    """What the start of a training does until it has its state."""

    def __init__(self, config):
        self._config, task = config, tasks.build(config)
        stream = pipeline.train_stream(config.data, task.train_spec, config.seed)
        self._mesh = sharding.make_mesh(config.mesh)
        spec = sharding.batch_spec(stream.spec, self._mesh)
        plan = Plan.from_config(config, 1.0)
        with jax.set_mesh(self._mesh):
            self._plans = state_lib.abstract(task, config, plan, self._mesh, spec)
        self._position = {
            "examples": stream.info.num_examples,
            "digest_of_names_and_labels": stream.info.digest,
        }

    def __call__(self, workdir: pathlib.Path):
        """(state on the host, notes)."""
        with (
            jax.set_mesh(self._mesh),
            Checkpointer(workdir, self._config, {}, whole) as run,
        ):
            state, notes = run.restore(self._plans.state, self._position)
        return jax.device_get(state), notes


def kind_of(file: str) -> str:
    if "/d/" in file:
        return "arrays"
    texts = ("config/metadata", "position/metadata", "card/metadata")
    return "config, position, card" if file in texts else "all other files"


def flip(bit: int) -> Callable[[pathlib.Path], None]:
    def act(path: pathlib.Path) -> None:
        data = bytearray(path.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)

    return act


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damages(step: pathlib.Path, flips: int, draw: random.Random) -> Iterator[Damage]:
    """All that is to be done to a step, a bit being flipped `flips` times a kind."""
    paths = sorted(path for path in step.rglob("*") if path.is_file())
    sizes = {path.relative_to(step).as_posix(): path.stat().st_size for path in paths}
    for kind in ("arrays", "config, position, card", "all other files"):
        names = [name for name in sizes if kind_of(name) == kind]
        for name in draw.choices(names, [sizes[name] for name in names], k=flips):
            act = flip(draw.randrange(8 * sizes[name]))
            yield f"one bit flipped: {kind}", name, act
    for name in sizes:
        yield "cut to its half", name, cut
    for name in sizes:
        yield "deleted", name, pathlib.Path.unlink


def same(a, b) -> bool:
    """Whether two states on the host are equal to the last bit."""
    bits = (jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), x) for x in (a, b))
    return jax.tree.all(jax.tree.map(bytes.__eq__, *bits))


def refused(workdir: pathlib.Path) -> bool:
    """Whether nobody gets the newest step's weights."""
    try:
        return restore_params(workdir).step < 4
    except ValueError as error:
        return " is damaged: " in str(error)


def campaign(root: pathlib.Path, restart: Restart, flips: int, seed: int):
    """Kind of damage -> how often it was tried, named, made good, refused."""
    whole, place = root / "whole", root / "run"
    newer, _ = restart(whole)
    shutil.copytree(whole, place)
    shutil.rmtree(find_step(place))
    older, _ = restart(place)
    counts: dict[str, np.ndarray] = {}
    for kind, file, act in damages(find_step(whole), flips, random.Random(seed)):
        shutil.rmtree(place)
        shutil.copytree(whole, place)
        act(find_step(place) / file)
        apart = refused(place)
        state, notes = restart(place)
        want = newer if (kind, file) == ("deleted", COMMITTED) else older
        told = any(file in note for note in notes)
        row = np.array((1, told, same(state, want), apart))
        counts[kind] = counts.get(kind, 0) + row
        if not all(row):
            print(f"{kind}, {file}: {row}, {notes}", flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tiny = str(ROOT / "configs" / "digits_tokenizer.py:tiny")
    parser.add_argument("--config", default=tiny)
    parser.add_argument("--flips", type=int, default=60, help="in each kind of file")
    parser.add_argument("--seed", type=int, default=0, help="of the flipped bits")
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="faults_bits_"))
    config = recipe(args.config)
    train(config, root / "whole", quiet=True)
    begun = time.monotonic()
    counts = campaign(root, Restart(config), args.flips, args.seed)
    seconds = time.monotonic() - begun
    shutil.rmtree(root)
    print("| damage | tried | file named | right step, bit for bit | weights refused |")
    print("| --- | --- | --- | --- | --- |")
    for kind, row in counts.items():
        print(f"| {kind} | {' | '.join(map(str, row))} |")
    tried, *right = sum(counts.values())
    print(f"{min(right)} of {tried} right, {seconds:.0f} s")
    if min(right) < tried:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
