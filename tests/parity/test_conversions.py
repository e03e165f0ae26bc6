"""Live: what is converted computes the same in the torch peers, and back."""

import numpy as np
import pytest

import beit_jax
from beit_jax.checkpoints import write
from beit_jax.checkpoints.foreign import families, files
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.checkpoints.names import flatten
from beit_jax.run import card
from tests.agreement import assert_agrees
from tests.models import official
from tests.parity import conversions
from tests.parity.cases import CASES, FULL_SIZE

torch = pytest.importorskip("torch")
# In full, and before TensorFlow, which beit_jax.load brings: after it, it crashes.
pytest.importorskip("transformers.models.beit.modeling_beit")
pytestmark = pytest.mark.parity

ATOL = 2e-5
OFFICIAL = ("mim_v1", "mim_v1_abs", "finetune_v1", "finetune_v1_cls")
# Where evaluation keeps the middle 56 of 64 pixels.
CROPPED = CASES["cls_plain"]._replace(image=(56, 56))


def assert_all_agree(case, folder, size):
    pytest.importorskip(case.peer)
    from tests.parity import peers

    family = f"{conversions.FAMILIES[case.kind]}, {size}"
    for way, difference in conversions.differences(case, folder).items():
        label = peers.label(case.peer)
        assert_agrees(label, f"{family}: {way}", difference, 0.0, ATOL)


@pytest.mark.parametrize("name", CASES)
def test_converted_networks_compute_the_same(name, tmp_path):
    assert_all_agree(CASES[name], tmp_path, "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beit_base_mim", "beit_base_224", "dall_e"])
def test_converted_networks_of_full_size_compute_the_same(name, tmp_path):
    assert_all_agree(FULL_SIZE[name], tmp_path, "full size")


def recorded(oracle, path):
    """Writes an official file of what was recorded.

    Returns:
      its tensors, all that was recorded, the hyper-parameters.
    """
    arrays, meta = official.load(oracle)
    state = official.group(arrays, "param") | official.group(arrays, "buffer")
    state = {name: torch.tensor(x) for name, x in state.items()}
    for name, x in state.items():  # recorded in half of PyTorch's 64 bits
        state[name] = x.long() if name.endswith("_index") else x
    conversions.save_official_state(state, path)
    return state, arrays, meta


@pytest.mark.parametrize("oracle", OFFICIAL)
def test_official_files_compute_what_was_recorded(oracle, tmp_path):
    _, arrays, meta = recorded(oracle, tmp_path / "official.pth")
    told = Hints(meta["img_size"], meta["num_heads"])
    apply = conversions.load(tmp_path / "official.pth", told)
    pretrains = "in/bool_masked_pos" in arrays
    mask = (arrays["in/bool_masked_pos"],) if pretrains else ()
    got = apply(official.images(arrays), *mask)
    want = arrays["out/logits_all" if pretrains else "out/logits"]
    what = f"{conversions.FAMILIES['mim' if pretrains else 'mean']}, tiny"
    label = "official code, recorded"
    assert_agrees(label, f"{what}: official -> ours", got, want, ATOL)


def test_from_transformers_by_way_of_timm_no_bit_changes(tmp_path):
    from tests.parity import peers

    case = CASES["mean_per_block"]
    model = peers.load(peers.hugging_face(case), case)
    model.save_pretrained(tmp_path / "hf")
    first, _ = families.restore(files.read(tmp_path / "hf"))
    first = first._replace(card=card.of_checkpoint(first))
    write.write(first, tmp_path / "timm.pth", "timm")
    timm = conversions.from_timm(tmp_path / "timm.pth", case)
    torch.save(timm.state_dict(), tmp_path / "again.pth")
    last, _ = families.restore(files.read(tmp_path / "again.pth"))
    one, two = flatten(first.params), flatten(last.params)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_an_official_file_comes_back_byte_for_byte(tmp_path):
    state, _, _ = recorded("mim_v1", tmp_path / "official.pth")
    read, _ = families.restore(files.read(tmp_path / "official.pth"))
    read = read._replace(card=card.of_checkpoint(read))
    write.write(read, tmp_path / "back.pth", "official")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert state.keys() == back.keys()
    for name, x in state.items():
        assert x.dtype == back[name].dtype
        assert x.numpy().tobytes() == back[name].numpy().tobytes(), name


@pytest.mark.parametrize(
    "case, settings",
    [
        (CASES["mean_per_block"], {}),
        (CASES["mim_shared"], {"pixels": "half"}),
        (CROPPED, conversions.CROPPING),
    ],
    ids=["classifier", "pre-training", "cropped"],
)
def test_their_image_processor_shows_what_our_evaluation_does(case, settings, tmp_path):
    from transformers import AutoImageProcessor

    from tests.parity import peers

    saved = conversions.checkpoint(case, **settings)
    folder, own = tmp_path / "hf", tmp_path / "own.safetensors"
    write.write(saved, folder, "hf")
    write.write(saved, own, "safetensors")
    share = settings.get("eval_frame", {}).get("crop_pct", 1.0)
    side = round(case.image[0] / share)  # nothing is resized
    image = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    theirs = AutoImageProcessor.from_pretrained(folder)
    assert type(theirs).__name__.startswith("CLIPImageProcessor")
    want = np.asarray(theirs(image, return_tensors="np")["pixel_values"])
    want = want.transpose(0, 2, 3, 1)
    assert want.shape == (1, *case.image, 3)
    label = peers.label("transformers")
    for path in (own, folder):
        got = beit_jax.load(path).preprocess(image)
        assert_agrees(label, "image processor: pixels", got, want, 1e-5)
