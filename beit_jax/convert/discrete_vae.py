"""Names in the state dicts of the "customized" discrete VAE of BEiT's code."""

from beit_jax.convert.rules import ANY_CONV, CONV_TRANSPOSE, SAME, Op, Row


def rows(patch_size: int = 8, res_blocks: int = 1) -> list[Row]:
    """The table of a `models.discrete_vae.DiscreteVAE` of these sizes."""
    stages = patch_size.bit_length() - 1
    table: list[Row] = [("codebook.weight", "decoder/codebook/kernel", SAME)]
    for net, resize, op in (
        ("encoder", "down", ANY_CONV),
        ("decoder", "up", CONV_TRANSPOSE),
    ):
        for stage in range(1, stages + 1):
            at = (stage - 1) * (1 + res_blocks)
            table += _conv(f"{net}.{at}.0", f"{net}/{resize}_{stage}", op)
            for block in range(1, res_blocks + 1):
                theirs = f"{net}.{at + block}.net"
                ours = f"{net}/stage_{stage}_block_{block}"
                for i in range(3):
                    table += _conv(f"{theirs}.{2 * i}", f"{ours}/conv_{i + 1}")
        table += _conv(f"{net}.{stages * (1 + res_blocks)}", f"{net}/output")
    return table


def _conv(theirs: str, ours: str, op: Op = ANY_CONV) -> list[Row]:
    weight = (f"{theirs}.weight", f"{ours}/kernel", op)
    return [weight, (f"{theirs}.bias", f"{ours}/bias", SAME)]
