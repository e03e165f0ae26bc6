"""Pictures with heads and names keep every pixel of the examples."""

import numpy as np

from beit_jax.charts import sheet


def test_all_rows_are_below_the_title_and_beside_the_names():
    rows = np.random.default_rng(0).integers(0, 256, (3, 128, 256, 3), np.uint8)
    plain = sheet.draw(rows, "title")
    np.testing.assert_array_equal(plain[-384:], np.concatenate(rows))
    heads = ("image", "a head of very many words that takes lines")
    named = sheet.draw(rows, "title", heads, ("a", "猫", "$b$"))
    np.testing.assert_array_equal(named[-384:, -256:], np.concatenate(rows))
    assert named.shape[0] > plain.shape[0] and named.shape[1] > plain.shape[1]
    assert (named[:-384] < 128).any() and (named[-384:, :-256] < 128).any()


def test_tiny_images_are_enlarged():
    assert sheet.draw(np.zeros((2, 32, 64, 3), np.uint8), "")[-256:].shape[1] == 256
