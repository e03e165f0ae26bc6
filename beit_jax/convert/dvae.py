"""Names in the state dicts of DALL-E's dVAE.

OpenAI's files hold the encoder and the decoder apart, without the first word.
"""

from itertools import pairwise

from beit_jax.convert.rules import ANY_CONV, SAME, Row


def rows(
    n_hid: int = 256, n_init: int = 128, blocks_per_group: int = 2, patch_size: int = 8
) -> list[Row]:
    """The table of a `models.dvae.DVAE` of these sizes."""
    widths = [n_hid << group for group in range(patch_size.bit_length())]
    table = []
    for net, dims in (
        ("encoder", [n_hid, *widths]),
        ("decoder", [n_init, *reversed(widths)]),
    ):
        table += _conv(f"{net}.blocks.input", f"{net}/input")
        for group, (dim_in, dim) in enumerate(pairwise(dims), 1):
            for block in range(1, blocks_per_group + 1):
                table += _block(
                    f"{net}.blocks.group_{group}.block_{block}",
                    f"{net}/group_{group}/block_{block}",
                    widens=block == 1 and dim_in != dim,
                )
        table += _conv(f"{net}.blocks.output.conv", f"{net}/output")
    return table


def _block(theirs: str, ours: str, widens: bool) -> list[Row]:
    table = _conv(f"{theirs}.id_path", f"{ours}/id_path") if widens else []
    for i in range(1, 5):
        table += _conv(f"{theirs}.res_path.conv_{i}", f"{ours}/conv_{i}")
    return table


def _conv(theirs: str, ours: str) -> list[Row]:
    weight = (f"{theirs}.w", f"{ours}/kernel", ANY_CONV)
    return [weight, (f"{theirs}.b", f"{ours}/bias", SAME)]
