"""Our networks against numbers of torch peers, recorded by `tests.parity.record`."""

import json

import numpy as np
import pytest

from tests.parity import golden, ours
from tests.parity.cases import CASES, FULL_SIZE, NOT_RECORDED
from tests.parity.compare import assert_agrees_with_record

RECORDED = [name for name in CASES if name not in NOT_RECORDED]


@pytest.mark.parametrize("name", RECORDED)
def test_ours_agrees_with_the_recorded_peer(name):
    case = CASES[name]
    record = golden.read(case.peer)[name]
    assert record["case"] == json.loads(json.dumps(case._asdict())), (
        "the case is not the recorded one; run `python -m tests.parity.record`"
    )
    assert_agrees_with_record(name, case, record)


def test_another_epsilon_would_be_noticed():
    case = CASES["mim_default_eps"]
    official = case._replace(model=case.model | {"norm_eps": 1e-6})
    logits = golden.digest({"logits": ours.run(official)["logits"]})["logits"]
    recorded = golden.read(case.peer)["mim_default_eps"]["logits"]
    assert np.max(np.abs(np.subtract(logits, recorded))) > 1e-3


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_has_as_many_parameters_as_the_peer(name):
    count = sum(np.prod(shape) for shape in ours.sizes(FULL_SIZE[name]).values())
    assert count == golden.read("sizes")[name]["parameters"]
