"""Maps of attention weights, and the figure of them."""

import numpy as np
import pytest

from beit_jax.charts import attention as chart


def bright(heat: list[list[float]]) -> np.ndarray:
    """(2,) mean levels of the halves of a black image under a 1x2 heat map."""
    image = np.zeros((32, 64, 3), np.uint8)
    drawn = chart.draw(image, np.array([[heat]]), blocks=[0])
    assert drawn.dtype == np.uint8 and drawn.shape[2] == 3
    under = drawn[60:-20, drawn.shape[1] // 2 + 20 : -10]  # within the second column
    return np.array([half.mean() for half in np.array_split(under, 2, axis=1)])


def test_heat_lies_where_the_weight_is():
    left, right = bright([[1.0, 0.0]])
    assert left > right + 40
    assert bright([[0.0, 1.0]])[1] > 40


def test_the_patch_that_asks_is_framed():
    image, maps = np.zeros((32, 32, 3), np.uint8), np.ones((1, 1, 4, 4))

    def cyan(patch):
        drawn = chart.draw(image, maps, [0], patch)
        return np.argwhere((drawn == (0, 255, 255)).all(-1))

    assert not len(cyan(None))
    upper, lower = cyan((0, 1))[:, 0].mean(), cyan((3, 1))[:, 0].mean()
    assert lower > upper + 50


def test_a_block_that_is_not_there_is_refused():
    image, maps = np.zeros((2, 2, 3), np.uint8), np.ones((2, 1, 2, 2))
    with pytest.raises(ValueError, match=r"blocks \[2\] must be some of 0\.\.1"):
        chart.draw(image, maps, [2])
