"""Random numbers that depend on (seed, purpose, example counter) and nothing else.

Batch size, host layout and order of execution cannot change them, and any example's
numbers, and its place in the shuffle, can be had without those before it.
"""

import zlib
from collections.abc import Callable

from beit_jax.data.graph import tf

# draw(first, count) -> (..., count) float64: numbers first, first + 1, ... in [0, 1).
Draw = Callable[[tf.Tensor | int, int], tf.Tensor]

_GOLDEN = 0x9E3779B97F4A7C15


def stream(seed: int, purpose: str, counter: tf.Tensor) -> Draw:
    """One endless stream of uniforms for each example.

    Args:
      seed: of the run.
      purpose: what the numbers are for; streams of different purposes are unrelated.
      counter: (...) integer, the example's global counter.
    """
    key = _mix(tf.constant(seed % 2**64, tf.uint64))
    key = _mix(key ^ tf.constant(zlib.crc32(purpose.encode()), tf.uint64))
    key = _mix(key ^ tf.cast(counter, tf.uint64))[..., None]

    def draw(first: tf.Tensor | int, count: int) -> tf.Tensor:
        number = tf.cast(first + 1 + tf.range(count), tf.uint64)
        bits = _mix(key + number * tf.constant(_GOLDEN, tf.uint64))
        return tf.cast(tf.bitwise.right_shift(bits, 11), tf.float64) * 2.0**-53

    return draw


def shuffled(position: tf.Tensor, count: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Position in an epoch's permutation of `count` examples -> index of an example.

    The op of `tf.random.experimental.index_shuffle`, with three changes (TensorFlow
    2.21). The public function pads a stack of seeds along the wrong axis. It uses
    seeds as they are, and small ones like (seed, epoch) hardly shuffle: of 64
    examples 40 stay in place. And we take 8 rounds, not 4.
    """
    key = stream(seed, "shuffle", epoch)(0, 3)
    return tf.raw_ops.RandomIndexShuffle(
        index=position,
        seed=tf.cast(key * 2.0**32, tf.int64),
        max_index=tf.constant(count - 1, tf.int64),
        rounds=8,
    )


def _mix(x: tf.Tensor) -> tf.Tensor:
    """The output function of splitmix64 (Steele, Lea, Flood 2014), a bijection."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ tf.bitwise.right_shift(x, shift)) * tf.constant(factor, tf.uint64)
    return x ^ tf.bitwise.right_shift(x, 31)
