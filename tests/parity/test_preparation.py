"""Live: photographs get the labels of our evaluation through other tools' own views."""

import json

import numpy as np
import pytest

import beit_jax
from beit_jax.checkpoints import read, write
from beit_jax.checkpoints.foreign import processors
from beit_jax.run import card
from beit_jax.run.preprocess import Preprocess
from tests.agreement import assert_agrees
from tests.parity import photos

torch = pytest.importorskip("torch")
# In full, and before TensorFlow, which beit_jax.load brings: after it, it crashes.
transformers = pytest.importorskip("transformers")
pytest.importorskip("transformers.models.beit.modeling_beit")
timm_data = pytest.importorskip("timm.data")
pytestmark = pytest.mark.parity

SIDES = (128, 32)  # of views
CROPPED = {"name": "centre", "crop_pct": 0.875}
SQUASHED = {"name": "whole", "crop_pct": 1.0}
BORDERED = {"name": "fit", "fill": (124, 116, 104)}


def processor(folder, **changes):
    """transformers' image processor of a folder: an image -> (3, H, W)."""
    path = folder / processors.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    loaded = transformers.AutoImageProcessor.from_pretrained(folder)
    return lambda image: np.asarray(loaded(image, return_tensors="np").pixel_values[0])


def classifier(side, frame):
    return photos.classifier(side, eval_frame=json.dumps(frame))


def label(peer):
    from tests.parity import peers

    return peers.label(peer)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "frame, most",
    [(CROPPED, 0.08), (CROPPED | {"crop_pct": 1.0}, 0.05), (SQUASHED, 0.01)],
    ids=["cropped", "centre", "squashed"],
)
def test_transformers_gives_nearly_all_photographs_our_label(
    side, frame, most, tmp_path
):
    """It cuts a pixel beside where we do if an odd number is over, as torchvision."""
    saved = classifier(side, frame)
    write.write(saved, tmp_path / "hf", "hf")
    share = photos.changed(saved, processor(tmp_path / "hf"))
    what = f"labels of {photos.SHOWN} photographs, share changed: {side} px"
    assert_agrees(label("transformers"), f"{what}, {frame}", share, 0.0, most)


@pytest.mark.parametrize("side", SIDES)
def test_an_image_processor_that_squashes_would_change_labels(side, tmp_path):
    """So much did the processor that was written before; now it is followed here."""
    saved = classifier(side, CROPPED | {"crop_pct": 1.0})
    write.write(saved, tmp_path / "hf", "hf")
    square = {"height": side, "width": side}
    beit = {"image_processor_type": "BeitImageProcessor", "do_center_crop": False}
    theirs = processor(tmp_path / "hf", size=square, **beit)
    assert photos.changed(saved, theirs) > 0.1
    back, _ = read.read(tmp_path / "hf")
    back = back._replace(card=card.of_checkpoint(back))
    assert photos.changed(back, theirs) < 0.01


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "frame, most",
    [(CROPPED, 0.0), (SQUASHED, 0.01), (BORDERED, 0.1)],
    ids=["cropped", "squashed", "bordered"],
)
def test_timm_gives_photographs_our_label(side, frame, most, tmp_path):
    """A folder is all that it needs: network, weights and views are in it.

    Where images are cut, all get it; its border is a pixel beside ours where its width
    is odd.
    """
    import timm

    saved = classifier(side, frame)
    write.write(saved, tmp_path / "timm", "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    config = timm_data.resolve_model_data_config(model)
    transform = timm_data.create_transform(**config, is_training=False)
    images, _ = photos.photos("val", photos.SHOWN)
    with torch.no_grad():
        theirs = model(torch.stack([transform(image) for image in images]))
    ours = photos.logits(saved, Preprocess(saved.card)(images))
    changed = np.mean(theirs.numpy().argmax(1) != ours.argmax(1))
    what = f"labels of {photos.SHOWN} photographs, share changed: {side} px"
    assert_agrees(label("timm"), f"{what}, {frame['name']}", changed, 0.0, most)
    assert list(model.pretrained_cfg["label_names"])[:2] == ["thing 0", "thing 1"]


def test_a_folder_that_timm_saved_tells_us_everything(tmp_path):
    """Heads that no table tells, class names, a filter, another crop."""
    import timm
    from timm.models import save_for_hf

    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2}
    settings |= {"num_heads": 4, "num_classes": 3, "global_pool": "token"}
    settings |= {"use_rel_pos_bias": False, "use_abs_pos_emb": True}
    model = timm.create_model("beit_base_patch16_224", **settings).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2)
    views = {"crop_pct": 0.8, "interpolation": "bilinear", "crop_mode": "squash"}
    save_for_hf(
        model,
        tmp_path,
        model_config={"label_names": ["ant", "bee", "cat"]},
        data_config=views,
        safe_serialization=True,
    )
    saved, report = read.read(tmp_path)
    assert report.notes == ()
    assert saved.config["model"]["heads"] == 4
    beit = beit_jax.load(tmp_path)
    assert beit.card["class_names"] == ["ant", "bee", "cat"]
    assert beit.card["frame"] == {"name": "whole", "crop_pct": 0.8}
    image = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        want = model(torch.tensor(image).permute(0, 3, 1, 2)).numpy()
    assert_agrees(label("timm"), "logits", photos.logits(saved, image), want, 1e-5)
