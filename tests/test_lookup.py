"""The explicit tables: what is looked up, and what is said when it is not there."""

import flax.linen as nn
import pytest

from beit_jax import lookup


def soup(size: int, hot: bool = True, salt: float = 0.5, *, spoon: str = "") -> tuple:
    return size, hot, salt, spoon


class Layer(nn.Module):
    dim: int
    bias: bool = True


TABLE = {"soup": soup, "layer": Layer}


def test_lookup_finds_what_is_there():
    assert lookup.lookup(TABLE, "soup", "the menu") is soup


def test_a_wrong_name_says_what_there_is():
    with pytest.raises(ValueError, match="no 'stew' in the menu; it has layer, soup"):
        lookup.lookup(TABLE, "stew", "the menu")


def test_settings_and_given_values_are_passed():
    given = {"spoon": "big"}
    assert lookup.call(soup, {"size": 3, "salt": 1}, "soup", **given) == (
        (3, True, 1, "big")
    )


def test_given_values_that_nobody_takes_are_left_out():
    assert lookup.call(soup, {"size": 3}, "soup", bowl=1) == (3, True, 0.5, "")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size": 3, "sal": 1.0}, r"soup takes no setting 'sal'; did you mean 'salt'"),
        ({"size": 3, "qq": 1}, r"takes no setting 'qq' \(it takes hot, salt, size\)"),
        ({"size": 3, "spoon": "x"}, "takes no setting 'spoon'"),
        ({"size": 3.0}, "soup: size=3.0 must be of type int"),
        ({"size": True}, "size=True must be of type int"),
        ({"size": 3, "hot": 1}, "hot=1 must be of type bool"),
        ({"size": 3, "salt": "much"}, "salt='much' must be of type float"),
        ({}, "soup needs a setting 'size'"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        lookup.call(soup, settings, "soup", spoon="given by the code")


def test_modules_are_called_by_their_attributes():
    assert lookup.build(TABLE, {"name": "layer", "dim": 2}, "here") == Layer(2)
    with pytest.raises(ValueError, match="here 'layer' takes no setting 'parent'"):
        lookup.build(TABLE, {"name": "layer", "dim": 2, "parent": 1}, "here")


def test_build_needs_a_name():
    with pytest.raises(ValueError, match="the menu needs a name: one of layer, soup"):
        lookup.build(TABLE, {"size": 1}, "the menu")


def test_build_leaves_the_spec_as_it_was():
    spec = {"name": "soup", "size": 1}
    lookup.build(TABLE, spec, "the menu")
    assert spec == {"name": "soup", "size": 1}
