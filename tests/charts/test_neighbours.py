"""The picture of queries and their neighbours."""

import numpy as np

from beit_jax.charts import neighbours as chart

GREEN, RED = (44, 160, 44), (214, 39, 40)


def pixels(colour: tuple[int, int, int], names: list[list[str]]) -> list[int]:
    """How many have that colour in each row, for queries "cat" and "dog"."""
    grey = np.full((2, 3, 8, 8, 3), 128, np.uint8)
    drawn = chart.draw(grey[:, 0], ["cat", "dog"], grey[:, 1:], names)
    assert drawn.dtype == np.uint8
    hit = (drawn == colour).all(-1)
    return [int(rows.sum()) for rows in np.array_split(hit, 2)]


def test_frames_tell_right_from_wrong_classes():
    names = [["cat", "cat"], ["cat", "a dog by another, longer name"]]
    (right, none), (nothing, wrong) = pixels(GREEN, names), pixels(RED, names)
    assert none == nothing == 0
    assert right > 500 and wrong > 500
