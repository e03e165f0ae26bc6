"""`beit_jax.load`: the same numbers as the tasks and the commands give."""

import inspect
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from PIL import Image

import beit_jax
from beit_jax import config as config_lib
from beit_jax import predict, tasks
from beit_jax.checkpoints import read, steps, write
from beit_jax.models.vit import Features
from beit_jax.run import card
from beit_jax.run.opened import Opened
from beit_jax.tasks.base import Context
from tests.tasks import runs

NAMES = ("ant", "bee", "cat", "dog")
PREPARED = {"model__pixels": "imagenet", "data__eval_frame__crop_pct": 0.875}


def save(path, config, drop: tuple[str, ...] = ()):
    """A run of random weights, without the parameters to `drop` -> its directory."""
    task, params, ctx, _ = runs.start(config)
    params = {name: tree for name, tree in params.items() if name not in drop}
    known = card.of(config, task, NAMES)
    steps.save_params(path, params, ctx.model_state, config, known)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    config = runs.config("classify", **PREPARED)
    return save(tmp_path_factory.mktemp("classifier"), config)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    config = runs.config("pretrain", "pixels")
    return save(tmp_path_factory.mktemp("pretrained"), config)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tokenizer"), runs.config("tokenizer"))


def picture(size=(50, 40), seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, path in enumerate(paths):
        picture((40 + number, 40), number).save(path)
    return paths


def test_logits_are_those_that_predict_ranks(classifier, files):
    beit = beit_jax.load(classifier)
    images = beit.preprocess(files)
    assert images.shape == (3, 32, 32, 3) and images.dtype == np.float32
    logits = applied(beit, images)
    assert logits.shape == (3, 4) and logits.dtype == np.float32
    shares = jax.nn.softmax(logits)
    for row, one in zip(shares, predict.predict(classifier, files), strict=True):
        ranked = np.argsort(-row)
        names = [beit.card["class_names"][number] for number in ranked]
        assert names == one.found["label"].tolist()
        np.testing.assert_allclose(row[ranked], one.found["probability"], rtol=1e-5)


def test_images_are_what_predict_shows_the_network(classifier, files):
    beit = beit_jax.load(classifier)
    seen = np.stack([one.image for one in predict.predict(classifier, files)])
    floats = (seen / np.float32(255) - beit.card["mean"]) / beit.card["std"]
    np.testing.assert_allclose(beit.preprocess(files), floats, rtol=1e-5, atol=1e-6)


def test_an_image_may_be_a_path_an_array_or_of_pil(classifier, files):
    see = beit_jax.load(classifier).preprocess
    with Image.open(files[0]) as image:
        forms = [files[0], image, np.asarray(image)]
        every = see(forms)
        alone = [see(form) for form in forms]
    assert all(one.shape == (1, 32, 32, 3) for one in alone)
    for one in (*alone, *every[:, None]):
        np.testing.assert_array_equal(one, every[:1])
    grey = see(picture().convert("L"))
    np.testing.assert_array_equal(grey, see(picture().convert("L").convert("RGB")))


def test_images_are_turned_where_the_card_says_so(tmp_path):
    config = runs.config("classify", data__apply_exif=True)
    turned = beit_jax.load(save(tmp_path / "turned", config)).preprocess
    plain = beit_jax.load(save(tmp_path / "plain", runs.config("classify"))).preprocess
    image = picture((32, 32))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "image.png", exif=exif)
    with Image.open(tmp_path / "image.png") as again:
        for image in (tmp_path / "image.png", again):
            upside = np.asarray(plain(image))[:, ::-1, ::-1]
            np.testing.assert_array_equal(turned(image), upside)
            assert (turned(image) != plain(image)).any()


@pytest.mark.parametrize(
    "image, words",
    [
        (np.zeros((4, 4)), r"float64\[4, 4\] must be uint8\[height, width, 3\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), "give several as a list"),
        (3, "a path, of PIL or an array, not 3"),
        ("gone.png", "gone.png cannot be used: .*No such file"),
        (__file__, "test_opened.py cannot be used: no image that can be read"),
    ],
)
def test_what_is_no_image_is_refused(classifier, image, words):
    with pytest.raises(ValueError, match=words):
        beit_jax.load(classifier).preprocess(image)


def of_task(path, image, mask=None):
    """What the task of a run computes of floats, before any loss."""
    saved = read.restore(path)
    task = tasks.build(config_lib.from_dict(saved.config))

    @jax.jit
    def compute(params, image, mask):
        features = task.encoder.apply({"params": params["encoder"]}, image, mask)
        return task.network.output.apply({"params": params}, features)

    return compute(saved.params, image, mask)


def applied(beit, *inputs):
    return jax.jit(beit.module.apply)(beit.variables, *inputs)


def assert_same(have, want):
    """But for the rounding of float32."""
    np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_classifier_computes_what_its_task_does(pool, tmp_path):
    path = save(tmp_path, runs.config("classify", task__pool=pool))
    beit = beit_jax.load(path)
    images = beit.preprocess([picture(seed=seed) for seed in range(2)])
    assert_same(applied(beit, images), of_task(path, images))
    assert beit.card["pool"] == pool


def test_a_pretrained_encoder_gives_logits_of_the_tokens(pretrained):
    beit = beit_jax.load(pretrained)
    images = beit.preprocess(picture())
    mask = np.arange(16)[None] < 7
    logits = [applied(beit, images, *masks) for masks in ((), (mask,))]
    assert logits[0].shape == (1, 16, 192)
    for have, hidden in zip(logits, (None, mask), strict=True):
        assert_same(have, of_task(pretrained, images, hidden))
    assert not np.allclose(*logits)


def test_an_encoder_without_a_head_gives_features(tmp_path, pretrained):
    path = save(tmp_path, runs.config("pretrain", "pixels"), drop=("lm_head",))
    beit, whole = beit_jax.load(path), read.restore(pretrained).params
    images = beit.preprocess(picture())
    found = applied(beit, images)
    assert isinstance(found, Features) and found.tokens.shape == (1, 17, 32)
    head = beit_jax.load(pretrained).module.output
    logits = head.apply({"params": whole}, found)
    assert_same(logits, of_task(pretrained, images))


def test_a_tokenizer_encodes_and_decodes(tokenizer):
    vqvae = beit_jax.load(tokenizer)
    images = vqvae.preprocess(picture())
    ids = vqvae.module.apply(vqvae.variables, images, method="encode")
    assert ids.shape == (1, 4, 4)
    made = vqvae.module.apply(vqvae.variables, ids, method="decode")
    assert made.shape == images.shape
    task, params, ctx, _ = runs.start(runs.config("tokenizer"))
    seen = np.asarray(vqvae.preprocess.space.to_uint8(images))
    ctx = Context(ctx.step, ctx.rng, ctx.model_state, {})
    batch = {"image": seen, "weight": np.ones(1, np.float32)}
    want = task.predict("tokens", params, batch, ctx)["tokens"]
    np.testing.assert_array_equal(ids, want)


def test_a_network_computes_without_the_teacher_that_it_learnt_from(tmp_path):
    path = save(tmp_path, runs.config("pretrain", "features"))
    saved = read.restore(path)
    saved.config["task"]["target"]["teacher"]["checkpoint"] = "gone"
    module, variables = Opened(saved).network()
    image = np.zeros((1, 32, 32, 3), np.float32)
    assert jax.eval_shape(module.apply, variables, image).shape == (1, 16, 16)


def test_another_image_size_resizes_positions(classifier):
    beit = beit_jax.load(classifier, image_size=(32, 48))
    images = beit.preprocess(picture())
    assert images.shape == (1, 32, 48, 3)
    assert beit.card["image_size"] == [32, 48]
    table = beit.variables["params"]["encoder"]["blocks"]["attn"]["rel_pos_bias"]
    assert table["table"].shape == (2, 7 * 11 + 3, 4)
    assert applied(beit, images).shape == (1, 4)
    with pytest.raises(ValueError, match="image_size=33 must be a multiple of"):
        beit_jax.load(classifier, image_size=33)


def test_a_tokenizer_may_see_images_of_any_shape(tokenizer):
    vqvae = beit_jax.load(tokenizer, image_size=(24, 40))
    ids = vqvae.module.apply(
        vqvae.variables, vqvae.preprocess(picture()), method="encode"
    )
    assert ids.shape == (1, 3, 5)


@pytest.mark.parametrize("name", ["pretrained", "classifier"])
def test_another_projects_file_computes_the_same(name, request, tmp_path):
    path = request.getfixturevalue(name)
    file = tmp_path / "beitv2.npz"  # which has ImageNet's mean and deviation
    write.write(read.restore(path), file, "official")
    have, want = beit_jax.load(file), beit_jax.load(path)
    images = want.preprocess(picture())
    assert_same(applied(have, images), applied(want, images))
    if name == "classifier":
        np.testing.assert_array_equal(have.preprocess(picture()), images)
    have, want = (beit_jax.load(each, image_size=(32, 48)) for each in (file, path))
    jax.tree.map(np.testing.assert_array_equal, have.variables, want.variables)
    assert have.card["image_size"] == want.card["image_size"] == [32, 48]


def test_what_has_no_network_is_refused(tmp_path):
    path = save(tmp_path, runs.config("probe"))
    with pytest.raises(ValueError, match="of task 'probe', which has no network of"):
        beit_jax.load(path)


def test_weights_that_do_not_fit_their_config_are_told(tmp_path):
    config = runs.config("classify")
    _, params, _, _ = runs.start(config)
    params["encoder"]["cls_token"] = np.zeros((1, 1, 16), np.float32)
    path = steps.save_params(tmp_path, params, {}, config, {})
    with pytest.raises(ValueError, match=r"cls_token: have float32\[1, 1, 16\], want"):
        beit_jax.load(path)


def test_the_example_of_the_docstring_runs(
    classifier, files, tmp_path, monkeypatch, capsys
):
    lines = inspect.getdoc(beit_jax.load).split("\n\n")[1:3]
    example = textwrap.dedent("\n".join(lines))
    assert len(example.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "finetune").symlink_to(classifier)
    for path, name in zip(files[:2], ("cat.jpg", "dog.jpg"), strict=True):
        Image.open(path).save(tmp_path / name)
    exec(example, {})
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] in NAMES for line in told] == [True, True]


def test_to_import_the_package_imports_nothing_else():
    code = "import sys, beit_jax; print({'jax', 'numpy', 'orbax'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_no_library_says_anything_when_a_checkpoint_is_loaded(classifier):
    code = f"import beit_jax; beit_jax.load({str(classifier)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
