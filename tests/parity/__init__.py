"""Second opinions: torch peers from PyPI against ours, on equal random weights.

    pip install -e .[dev,torch]
    pytest -m parity                    # live; skipped where a peer is not installed
    pytest -m "parity and slow"         # the same at full size, in minutes
    python -m tests.parity.record       # writes the peers' files in tests/golden/

`cases` says which networks are compared, `random_weights` draws what is in them, `ours`
and `peers` run them, `names` tells which tensor is which. Some of the peers' numbers
are kept in tests/golden/, so that tests/models/test_golden.py compares without torch.

On a machine without a GPU: timm needs torchvision, whose wheel beside a CPU-only torch
may fail in `torchvision/_meta_registrations.py`; an empty file in its place is enough.
"""
