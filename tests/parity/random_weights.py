"""Parameters that are all random: a table or a bias of zeros would hide a mistake."""

import math
from collections.abc import Mapping

import numpy as np

MEAN_AND_SPREAD = {  # by the last part of the path
    "gamma_1": (0.5, 0.1),
    "gamma_2": (0.5, 0.1),
    "scale": (1.0, 0.3),
    "table": (0.0, 1.0),
}
REST = (0.0, 0.3)  # biases, tokens, positions


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Path -> float32 values, drawn in the order of the paths.

    Kernels keep the size of what they multiply. From `RandomState`, whose numbers are
    the same in every version of numpy.
    """
    rng = np.random.RandomState(seed)
    return {path: _values(rng, path, shapes[path]) for path in sorted(shapes)}


def _values(rng: np.random.RandomState, path: str, shape: tuple[int, ...]):
    leaf = path.rsplit("/", 1)[-1]
    mean, spread = MEAN_AND_SPREAD.get(leaf, REST)
    if leaf in ("kernel", "qkv"):
        spread = _fan_in(path, shape) ** -0.5
    return (mean + spread * rng.standard_normal(shape)).astype(np.float32)


def _fan_in(path: str, shape: tuple[int, ...]) -> int:
    if "/blocks/" in path:
        shape = shape[1:]  # stacked
    return shape[0] if path.endswith("/qkv") else math.prod(shape[:-1])
