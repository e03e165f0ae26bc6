"""What is found of images: as an evaluation sees them, and as it is written."""

import contextlib
import csv
import functools
import io
import json
import pathlib
import types

import jax
import numpy as np
import pytest
from PIL import Image

from beit_jax import predict, tasks
from beit_jax.checkpoints import steps
from beit_jax.evaluate import evaluate
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.run import card, predictions
from beit_jax.run.found import Prediction, check_new
from beit_jax.run.predictions import PREDICTIONS, Asked
from beit_jax.tasks import TASKS
from beit_jax.tasks.encoders import block_features
from tests.tasks import runs
from tests.test_commands import command, finish

NAMES = ("ant", "bee", "cat", "dog")
FORMS = {"RGB": (40, 50), "L": (32, 32), "P": (23, 31)}  # mode -> width, height


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    """Class folders of images of every form; bee/P.png is broken."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in NAMES:
        (folder / name).mkdir()
        for mode, (width, height) in FORMS.items():
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            image.convert(mode).save(folder / name / f"{mode}.png")
    (folder / "bee" / "P.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, images):
    """Makes a checkpoint of a task with random weights, evaluated on `images`."""
    made = {}

    def make(name: str, names: tuple[str, ...] = NAMES, **changes) -> str:
        if (name, names) not in made:
            config = runs.config(
                name,
                data__eval_source={"name": "folder", "path": str(images)},
                data__on_bad="skip",
                data__max_bad=0.5,
                data__eval_frame__crop_pct=0.875,
                data__augment__token_interpolation="bicubic",
                model__pixels="imagenet",
                **changes,
            )
            task, params, ctx, _ = runs.start(config)
            path = tmp_path_factory.mktemp(name)
            known = card.of(config, task, names)
            steps.save_params(path, params, ctx.model_state, config, known)
            made[name, names] = str(path)
        return made[name, names]

    return make


@pytest.fixture(scope="module")
def pretrained(checkpoint) -> str:
    """It predicts all patches, so that some of them are right by chance."""
    target = {"name": "tokens", "checkpoint": checkpoint("tokenizer")}
    return checkpoint("pretrain", task__target=target, task__predict="all")


def run(checkpoint: str, images, what: str, out, **changes) -> tuple[int, str]:
    """The command -> its exit code and what it told on stderr."""
    options = {"class_names": [], "blocks": [], "patch": [], "batch_size": 0}
    options |= {"checkpoint": checkpoint, "images": [str(images)], "what": what}
    options |= {"out": str(out), "overwrite": False, "top": 4, "config": None}
    options |= {"tta": ""}
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        try:
            predict.main(types.SimpleNamespace(**options | changes))
        except SystemExit as end:
            return end.code, told.getvalue()
    return 0, told.getvalue()


@pytest.fixture(scope="module")
def labelled(checkpoint, images, tmp_path_factory):
    """(folder of labels.csv and labels.jsonl, exit code, what was told)."""
    out = tmp_path_factory.mktemp("labels") / "new"
    return out, *run(checkpoint("classify"), images, "labels", out)


def rows(out) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_labels_are_those_that_an_evaluation_counts(labelled, checkpoint):
    metrics = evaluate(checkpoint("classify"))
    found = rows(labelled[0])
    true = [pathlib.Path(row["image"]).parent.name for row in found]
    hits = [row["label"] == name for row, name in zip(found, true, strict=True)]
    assert len(found) == metrics["eval/examples"] == 11
    assert np.mean(hits) == metrics["eval/top1"]
    lines = (labelled[0] / "labels.jsonl").read_text().splitlines()
    nats = [
        -np.log(each["probability"])
        for line, name in zip(lines, true, strict=True)
        for each in json.loads(line)["labels"]
        if each["label"] == name
    ]
    np.testing.assert_allclose(np.mean(nats), metrics["eval/loss"], rtol=1e-5)


def test_a_file_that_cannot_be_used_is_told_and_the_others_are_done(labelled, images):
    out, code, told = labelled
    assert code == 65
    assert told == f"skipped: {images}/bee/P.png: the file is empty\n"
    files = sorted(str(path) for path in images.rglob("*.png"))
    files.remove(f"{images}/bee/P.png")
    assert [row["image"] for row in rows(out)] == files


def test_found_is_the_same_in_batches_of_any_size(labelled, checkpoint, images):
    found = list(predict.predict(checkpoint("classify"), [images], batch_size=5))
    assert [bool(one.problem) for one in found] == [n == 4 for n in range(12)]
    good = [one for one in found if not one.problem]
    for one, row in zip(good, rows(labelled[0]), strict=True):
        assert (one.name, one.found["label"][0]) == (row["image"], row["label"])
        best = float(row["probability"])
        np.testing.assert_allclose(one.found["probability"][0], best, rtol=1e-5)


def test_predicted_tokens_have_the_accuracy_of_an_evaluation(
    pretrained, checkpoint, images, tmp_path
):
    run(pretrained, images, "tokens", tmp_path)
    found = np.load(tmp_path / "tokens.npz")
    assert found["tokens"].shape == found["mask"].shape == (11, 4, 4)
    metrics = evaluate(pretrained)
    hits = found["tokens"] == found["tokenizer"]
    np.testing.assert_allclose(hits.mean(), metrics["eval/accuracy"], rtol=1e-6)
    assert hits.any()
    assert found["mask"].sum() / 11 == metrics["eval/masked_patches"]
    own = predict.predict(checkpoint("tokenizer"), [images], "tokens")
    own = [one.found["tokens"] for one in own if not one.problem]
    np.testing.assert_array_equal(own, found["tokenizer"])


def test_what_is_found_in_a_grid_is_told_where_it_lies(checkpoint, images, tmp_path):
    """The frame leads back: it shows the network's view of the image anew."""
    run(checkpoint("tokenizer"), images / "ant", "tokens", tmp_path)
    places = np.load(tmp_path / "tokens.npz")["place"]
    every = predict.predict(checkpoint("tokenizer"), [images / "ant"], "tokens")
    for one, place in zip(every, places, strict=True):
        with Image.open(one.name) as image:
            whole = (image.height, image.width)
            view = one.frame.image(image.convert("RGB"), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(view, one.image)
        assert one.frame.whole == whole
        top, left, bottom, right = place
        np.testing.assert_allclose(
            [top, left], [(s - 0.875 * min(whole)) / 2 for s in whole], atol=1
        )
        np.testing.assert_allclose(
            [bottom - top, right - left], 0.875 * min(whole), atol=1
        )
        back = one.frame.back(one.found["tokens"], outside=-1)
        assert back.shape == whole
        assert set(back.ravel()) - {-1} == set(one.found["tokens"].ravel())


def test_attention_is_written_for_each_query_and_drawn_for_each_image(
    checkpoint, images, tmp_path
):
    ant = images / "ant"
    wanted = {"blocks": ["1"], "patch": ["2", "1"]}
    run(checkpoint("classify"), ant, "attention", tmp_path, **wanted)
    found = np.load(tmp_path / "attention.npz")
    every = predict.predict(checkpoint("classify"), [ant], "attention", patch=(2, 1))
    for number, one in enumerate(every):
        for name in ("cls", "patch"):
            np.testing.assert_array_equal(found[name][number], one.found[name][[1]])
    assert not np.allclose(found["cls"], found["patch"])
    names = [path.name for path in sorted((tmp_path / "attention").iterdir())]
    assert names == ["000000_L.png", "000001_P.png", "000002_RGB.png"]


def test_reconstructions_are_drawn_beside_their_images(checkpoint, images, tmp_path):
    grey = images / "ant" / "L.png"
    run(checkpoint("tokenizer"), grey, "reconstruction", tmp_path)
    (file,) = (tmp_path / "reconstruction").iterdir()
    picture = np.asarray(Image.open(file))[::4, ::4]  # enlarged from 32 px
    (one,) = predict.predict(checkpoint("tokenizer"), [grey], "reconstruction")
    np.testing.assert_array_equal(picture, one.found["picture"])
    np.testing.assert_array_equal(picture[:, :32], one.image)
    assert (picture[:, :32] != picture[:, 32:]).any()


def test_features_are_of_the_blocks_asked_for(checkpoint, images, tmp_path):
    classifier = checkpoint("classify")
    every = list(predict.predict(classifier, [images / "ant"], "features"))
    write(every, tmp_path, Asked("features", blocks=[1, 0]))
    found = np.load(tmp_path / "features.npz")
    assert found["names"].tolist() == [one.name for one in every]
    seen = PIXEL_SPACES["imagenet"].to_float(np.stack([one.image for one in every]))
    encoder = tasks.build(runs.config("classify")).encoder
    features = jax.jit(functools.partial(block_features, encoder, kind="concat"))
    both = features(steps.restore_params(classifier).params["encoder"], image=seen)
    both = both.swapaxes(0, 1)[:, [1, 0]]
    np.testing.assert_allclose(found["cls"], both[..., :32], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["mean"], both[..., 32:], rtol=1e-5, atol=1e-5)


# Of four images of 4x4 patches and 4 classes.
FORMS_OF = {
    "labels": ("log_probability", (4, 4), np.float32),
    "numbers": ("numbers", (4, 2), np.float32),
    "tokens": ("tokens", (4, 4, 4), np.int32),
    "reconstruction": ("picture", (4, 32, 96, 3), np.uint8),
    "segments": ("segments", (4, 32, 32), np.uint16),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_its_outputs_in_their_forms(name):
    task, params, ctx, batch = runs.start(runs.config(name))
    if not task.outputs:
        pytest.skip(f"{name} gives nothing for new images")
    batch = {
        key: batch[key]
        for key in (*predictions.INPUTS, "frame", "weight")
        if key in batch
    }
    for what in task.outputs:
        method = functools.partial(task.predict, what)
        made = jax.eval_shape(method, params, batch, ctx)
        key, shape, dtype = FORMS_OF[what]
        if (name, what) == ("tokenizer", "reconstruction"):
            shape = (4, 32, 64, 3)  # a column less
        assert (made[key].shape, made[key].dtype) == (shape, dtype)
        assert {len(array) for array in made.values()} == {4}


def test_what_a_checkpoint_does_not_give_is_refused(checkpoint, pretrained, images):
    with pytest.raises(ValueError, match="gives tokens, reconstruction, not labels"):
        predict.predict(checkpoint("tokenizer"), [images])
    with pytest.raises(ValueError, match="'tokenizer', which has no BEiT encoder"):
        predict.predict(checkpoint("tokenizer"), [images], "features")
    with pytest.raises(
        ValueError, match="'pretrain', which gives tokens, .*attention, not labels"
    ):
        predict.predict(pretrained, [images])
    pixels = runs.config("pretrain", "pixels")
    assert "tokens" not in runs.start(pixels)[0].outputs


def test_class_names_are_asked_for_only_where_they_are_not_known(checkpoint, images):
    with pytest.raises(ValueError, match=r"knows the names.*\(ant, bee.*leave out"):
        predict.predict(checkpoint("classify"), [images], class_names=NAMES)
    nameless = checkpoint("classify", names=())
    with pytest.raises(ValueError, match=r"give all 4 by --class_names.*given: 0"):
        predict.predict(nameless, [images])
    (one,) = predict.predict(nameless, [images / "ant" / "L.png"], class_names=NAMES)
    assert sorted(one.found["label"]) == [*NAMES]


def test_results_are_replaced_only_when_asked(checkpoint, images, tmp_path):
    (tmp_path / "labels.csv").write_text("mine")
    for what, kind in PREDICTIONS.items():
        if what != "labels":
            check_new(tmp_path, kind.files)
    with pytest.raises(ValueError, match="labels.csv exists; .*--overwrite"):
        run(checkpoint("classify"), images, "labels", tmp_path)
    assert (tmp_path / "labels.csv").read_text() == "mine"
    run(checkpoint("classify"), images / "ant", "labels", tmp_path, overwrite=True)
    assert len(rows(tmp_path)) == 3


def test_what_replaces_leaves_no_older_pictures(checkpoint, images, tmp_path):
    """And nothing but those: a folder of that name may hold other things."""
    folder = tmp_path / "reconstruction"
    folder.mkdir()
    for name in ("000000_ant.png", "000007_bee.png", "mine.png"):
        (folder / name).write_text("old")
    what = (images / "ant" / "L.png", "reconstruction", tmp_path)
    with pytest.raises(ValueError, match="which gives labels"):
        run(checkpoint("classify"), *what, overwrite=True)
    assert len([*folder.iterdir()]) == 3
    run(checkpoint("tokenizer"), *what, overwrite=True)
    assert {file.name for file in folder.iterdir()} == {"000000_L.png", "mine.png"}


def test_classes_of_one_name_are_both_told(tmp_path):
    labels, shares = np.array(["crane", "crane", "dog"]), np.array([0.5, 0.3, 0.2])
    found = {"label": labels, "probability": shares}
    write([made(found)], tmp_path, Asked("labels", top=2))
    told = json.loads((tmp_path / "labels.jsonl").read_text())["labels"]
    assert [each["probability"] for each in told] == [0.5, 0.3]


def test_an_encoder_needs_no_tokenizer(checkpoint, images, tmp_path):
    target = {"name": "tokens", "checkpoint": str(tmp_path / "gone")}
    config = runs.config("pretrain")
    params = runs.start(config)[1]
    config.task.target = target
    saved = steps.save_params(tmp_path / "run", params, {}, config, {})
    image = [images / "ant" / "L.png"]
    for what in ("features", "attention"):
        (one,) = predict.predict(saved, image, what)
        assert one.found["cls"].shape[:2] == (2, 32 if what == "features" else 4)


@pytest.mark.parametrize(
    "patch, message",
    [(["1"], "--patch=1 must be ROW,COLUMN"), (["1", "x"], "=1,x must be whole")],
)
def test_a_patch_is_a_row_and_a_column(patch, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run("nowhere", tmp_path, "attention", tmp_path, patch=patch)


def made(found: dict[str, np.ndarray]) -> Prediction:
    return Prediction("a.png", "", np.zeros((32, 32, 3), np.uint8), found)


def write(found: list[Prediction], out: pathlib.Path, asked: Asked) -> None:
    PREDICTIONS[asked.what].write(found, out, asked)


def test_blocks_that_are_not_there_are_refused(tmp_path):
    one = made({"cls": np.zeros((2, 32)), "mean": np.zeros((2, 32))})
    with pytest.raises(ValueError, match=r"blocks \[2\] must be some of 0..1"):
        write([one], tmp_path, Asked("features", blocks=[2]))


def test_the_command_tells_what_is_missing_in_a_sentence(tmp_path):
    """Images are named as a shell spells out *.png: the flag takes but the first."""
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    images = ["--images", tmp_path / "a.png", tmp_path / "gone.png"]
    options = ["--what", "features", "--checkpoint", tmp_path]
    code, _, err = finish(command("predict", *images, *options))
    assert code == 78 and "Traceback" not in err
    assert f"error: there is no file, folder or archive '{tmp_path}/gone.png'" in err
