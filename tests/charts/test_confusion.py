"""The pictures of a confusion matrix and of calibration can always be drawn."""

import numpy as np
import pytest

from beit_jax.charts import confusion, reliability


@pytest.mark.parametrize("classes", [3, 60, 400])
def test_a_matrix_of_any_size_is_seen(classes):
    """Whatever the names; a mistake of 2 % is seen among many classes."""
    counts = 49 * np.eye(classes, dtype=int)
    names = [rf"$\frac class {number} of a long name" for number in range(classes)]
    right = confusion.draw(counts, names)
    counts[-1, 0] = 1
    wrong = confusion.draw(counts, names)
    assert right.dtype == np.uint8 and right.shape == wrong.shape
    height, width, _ = right.shape
    below_the_title = np.s_[height // 12 :]
    changed = right[below_the_title] != wrong[below_the_title]
    assert changed.any() and min(height, width) > 500


def test_classes_without_names_or_images_are_drawn():
    drawn = confusion.draw(np.zeros((3, 3), int))
    assert drawn.std() > 0


def test_bins_are_seen_where_there_are_images():
    count, accuracy = np.zeros(15), np.zeros(15)
    empty = reliability.draw(count, accuracy, accuracy, 0.0)
    count[7], accuracy[7] = 4, 0.5
    one = reliability.draw(count, accuracy, accuracy, 0.0)
    assert one.shape == empty.shape and (one != empty).any()
