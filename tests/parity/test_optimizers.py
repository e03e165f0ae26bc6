"""Lion, LAMB and Adafactor against timm's, step by step."""

import numpy as np
import pytest

from tests.agreement import assert_agrees
from tests.optim.stacked import SHAPES, STEPS, drawn, leaf, ours, rate

torch = pytest.importorskip("torch")
optim = pytest.importorskip("timm.optim")
pytestmark = pytest.mark.parity

PEERS = {
    "lion": lambda groups: optim.Lion(groups, lr=1.0, betas=(0.9, 0.99)),
    "lamb": lambda groups: optim.Lamb(
        groups, lr=1.0, betas=(0.9, 0.99), eps=1e-6, max_grad_norm=None
    ),
    "adafactor": lambda groups: optim.Adafactor(
        groups, lr=1.0, min_dim_size_to_factor=127
    ),
}


def two_dimensional(what, block):
    """A block's parameter as PyTorch has it, but for the order of the axes."""
    return block.reshape(len(block), -1) if what == "attn/qkv" else block


@pytest.mark.parametrize("name", PEERS)
def test_a_block_moves_as_timms_does(name):
    after = ours(name)
    for what in SHAPES:
        for number in range(2):
            start = two_dimensional(what, leaf(after[0], what)[number])
            weight = torch.nn.Parameter(torch.tensor(start.astype(np.float32)))
            decay = 0.0 if what.endswith("bias") else 0.1
            peer = PEERS[name]([{"params": [weight], "weight_decay": decay}])
            for step in range(STEPS):
                peer.param_groups[0]["lr"] = float(rate(step))
                grad = two_dimensional(what, leaf(drawn(1 + step), what)[number])
                weight.grad = torch.tensor(grad.astype(np.float32))
                peer.step()
                got = two_dimensional(what, leaf(after[step + 1], what)[number])
                assert_agrees("timm", name, got, weight.detach().numpy(), 1e-5)
