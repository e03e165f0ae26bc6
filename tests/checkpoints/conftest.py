"""Fixtures of files of torch.save."""

import pytest

from tests.checkpoints.handmade import archive, row

WRITERS = {"archive": archive, "row": row}


@pytest.fixture(params=WRITERS)
def write(request):
    """Writes one of the two formats."""
    return WRITERS[request.param]


@pytest.fixture
def sentinel(tmp_path):
    """A file that hostile pickles would make."""
    path = tmp_path / "sentinel"
    yield path
    assert not path.exists()
