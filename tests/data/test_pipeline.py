"""Streams: batch k is a pure function of (seed, k), on any number of hosts."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from beit_jax.data import batches, pipeline
from beit_jax.data.sources import synthetic


def spec_of(**shapes):
    return {
        name: SimpleNamespace(
            shape=shape, dtype=np.dtype(batches.dtypes().get(name, "u1"))
        )
        for name, shape in shapes.items()
    }


SUFFIXES = ("jpg", "png")
SPEC = spec_of(image=(16, 16, 3), token_image=(8, 8, 3), mask=(4, 4), label=())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images of different sizes in two classes, JPEG and PNG."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.RandomState(0)
    for i in range(10):
        pixels = random.randint(0, 256, (20 + i, 30 - i, 3)).astype(np.uint8)
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / "ab"[i % 2] / f"{i}.{SUFFIXES[i % 4 > 1]}")
    return root


@pytest.fixture(params=["synthetic", "folder"])
def config(request):
    """Ten examples, read as stacks and one by one."""
    source = {"name": "synthetic", "num_examples": 10, "size": 20}
    if request.param == "folder":
        source = {"name": "folder", "path": str(request.getfixturevalue("folder"))}
    return config_of(source)


def config_of(source, **changes):
    return {
        "batch_size": 4,
        "source": source,
        "eval_source": source,
        "frame": {"name": "random_resized", "min_scale": 0.3},
        "augment": {"flip": True},
        "mask": {"name": "blockwise", "max_patches": 6, "min_block": 2},
        **changes,
    }


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_batches_have_exactly_the_promised_arrays(config):
    for stream in (
        pipeline.train_stream(config, SPEC, seed=0),
        pipeline.eval_stream(config, SPEC, seed=0),
    ):
        batch = next(stream.batches())
        assert batch.keys() == {*SPEC, "weight", "index"}
        for name, (shape, dtype) in stream.spec.items():
            assert (batch[name].shape, batch[name].dtype) == (shape, dtype)
        assert (batch["weight"] == 1).all()


def test_without_masks_or_labels_there_are_none(config):
    batch = next(pipeline.train_stream(config, spec_of(image=(8, 8, 3)), 0).batches())
    assert batch.keys() == {"image", "weight", "index"}


def test_seeking_gives_what_running_gives(config):
    run = take(pipeline.train_stream(config, SPEC, seed=1).batches(0), 7)
    sought = take(pipeline.train_stream(config, SPEC, seed=1).batches(4), 3)
    assert_same(run[4:], sought)


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("make", [pipeline.train_stream, pipeline.eval_stream])
def test_hosts_only_divide_the_batches(config, make, hosts):
    stream = make(config, SPEC, seed=1)
    whole = take(stream.batches(), 3)
    parts = [take(stream.batches(shard=(host, hosts)), 3) for host in range(hosts)]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(whole, joined)


def test_examples_to_be_shown_are_from_all_over_and_as_in_the_pass(config):
    stream = pipeline.eval_stream(config, SPEC, seed=0)
    every = [*stream.batches()]
    joined = {k: np.concatenate([batch[k] for batch in every]) for k in every[0]}
    shown = stream.spread(3)
    assert shown["index"].tolist() == [1, 5, 8, -1]
    assert shown["weight"].tolist() == [1, 1, 1, 0]
    for name, rows in shown.items():
        np.testing.assert_array_equal(rows[:3], joined[name][[1, 5, 8]], err_msg=name)


def test_seeds_give_different_order_crops_and_masks(config):
    first, second = (
        next(pipeline.train_stream(config, SPEC, seed).batches()) for seed in (0, 1)
    )
    for name in ("image", "mask"):
        assert (first[name] != second[name]).any()


def test_an_epoch_has_every_example_once_in_an_order_of_its_own():
    """The label of each synthetic example is its index here."""
    source = {"name": "synthetic", "num_examples": 10, "num_classes": 10, "size": 8}
    stream = pipeline.train_stream(config_of(source), SPEC, seed=0)
    labels = np.concatenate([b["label"] for b in take(stream.batches(), 10)])
    epochs = labels.reshape(4, 10)
    assert (np.sort(epochs) == np.arange(10)).all()
    assert len(np.unique(epochs, axis=0)) == 4
    assert stream.steps_per_epoch == 2


def test_fewer_examples_than_a_batch_still_make_batches():
    config = config_of({"name": "synthetic", "num_examples": 1}, batch_size=3)
    stream = pipeline.train_stream(config, SPEC, seed=0)
    assert stream.steps_per_epoch == 1
    assert next(stream.batches())["image"].shape == (3, 16, 16, 3)


def test_evaluation_counts_each_example_once_and_repeats_itself(config):
    stream = pipeline.eval_stream(config, SPEC, seed=0)
    passes = [list(stream.batches()) for _ in range(2)]
    assert_same(*passes)
    weights = np.concatenate([b["weight"] for b in passes[0]])
    np.testing.assert_array_equal(weights, [1] * 10 + [0] * 2)
    assert stream.steps_per_epoch == 3


def test_evaluation_keeps_the_order_of_the_source():
    source = {"name": "synthetic", "num_examples": 10, "num_classes": 10, "size": 16}
    stream = pipeline.eval_stream(config_of(source), SPEC, seed=0)
    batches = list(stream.batches())
    labels = np.concatenate([b["label"] for b in batches])[:10]
    images = np.concatenate([b["image"] for b in batches])[:10]
    np.testing.assert_array_equal(labels, np.arange(10))
    source = synthetic.Synthetic(10, 10, 16)
    want = [source.read(index).image for index in range(10)]
    np.testing.assert_array_equal(images, want)


@pytest.mark.parametrize("make", [pipeline.train_stream, pipeline.eval_stream])
def test_a_batch_tells_which_examples_it_holds(make):
    """The label of each synthetic example is its index here."""
    source = {"name": "synthetic", "num_examples": 10, "num_classes": 10, "size": 8}
    stream = make(config_of(source), SPEC, seed=0)
    for step, batch in enumerate(take(stream.batches(), 3)):
        real = batch["weight"] > 0
        np.testing.assert_array_equal(batch["index"][real], batch["label"][real])
        assert (batch["index"][~real] == -1).all()
        np.testing.assert_array_equal(stream.index(step), batch["index"])


def test_both_views_show_the_same_part_and_side(config):
    batch = next(pipeline.train_stream(config, SPEC, seed=0).batches())
    halved = batch["image"].reshape(4, 8, 2, 8, 2, 3).mean((2, 4))
    views = [halved.reshape(4, -1), batch["token_image"].reshape(4, -1)]
    likeness = np.corrcoef(np.concatenate(views))[:4, 4:]
    assert (
        likeness.argmax(1) == np.arange(4)
    ).all() and likeness.diagonal().min() > 0.9


def broken(folder, tmp_path, *names):
    """The folder with some of its files cut short, as a config."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name in names:
        (tmp_path / name).write_bytes((folder / name).read_bytes()[:200])
    return config_of({"name": "folder", "path": str(tmp_path)})


BOTH = pytest.mark.parametrize("make", [pipeline.train_stream, pipeline.eval_stream])


@BOTH
@pytest.mark.parametrize("name", ["b/5.jpg", "b/7.png"])
def test_a_broken_image_ends_the_run_and_is_named(folder, tmp_path, make, name):
    config = broken(folder, tmp_path, name)
    for _ in range(2):  # whoever tries again is told again
        with pytest.raises(ValueError, match=f"/{name}: .*data.on_bad='skip'"):
            take(make(config, SPEC, seed=0).batches(), 3)


@BOTH
def test_skipped_images_weigh_nothing_and_change_nothing_else(folder, tmp_path, make):
    """One pass of ten, in batches of four: the same but for the two broken ones."""
    config = broken(folder, tmp_path, "b/5.jpg", "a/4.jpg")
    config |= {"on_bad": "skip", "max_bad": 0.2}
    stream = make(config, SPEC, seed=0)
    stream.ledger.write_to(tmp_path / "skipped.txt")
    whole = take(
        make(config_of({"name": "folder", "path": str(folder)}), SPEC, 0).batches(), 3
    )
    missing = 0
    for ours, full in zip(take(stream.batches(), 3), whole, strict=True):
        skipped = (ours["weight"] == 0) & (full["weight"] == 1)
        missing += skipped.sum()
        for name in SPEC:
            np.testing.assert_array_equal(ours[name][~skipped], full[name][~skipped])
        np.testing.assert_array_equal(ours["mask"], full["mask"])
        assert not ours["image"][skipped].any()
    assert missing >= 2
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert sorted(lines) == sorted(stream.ledger.sentences.values())
    assert sorted(line.split(": ")[0][-7:] for line in lines) == ["a/4.jpg", "b/5.jpg"]


@BOTH
def test_too_many_skipped_images_end_the_run(folder, tmp_path, make):
    config = broken(folder, tmp_path, "b/5.jpg", "b/7.png")
    config |= {"on_bad": "skip", "max_bad": 0.1}
    with pytest.raises(
        ValueError, match="cannot be used: 2, data.max_bad=0.1 allows 1"
    ):
        take(make(config, SPEC, seed=0).batches(), 3)


def test_an_impossible_label_is_named(monkeypatch):
    """JAX would give NaN, or take the last class for -1."""
    real = synthetic.Synthetic.read
    monkeypatch.setattr(
        synthetic.Synthetic, "read", lambda self, i: real(self, i)._replace(label=i)
    )
    config = config_of({"name": "synthetic", "num_examples": 10, "num_classes": 9})
    with pytest.raises(ValueError, match=r"image 9 of .*label is 9; .* 0 \.\. 8"):
        take(pipeline.eval_stream(config, SPEC, seed=0).batches(), 3)


def test_an_error_of_other_code_passes_as_it_is(monkeypatch):
    def read(self, index):
        raise ZeroDivisionError("a bug, not bad data")

    monkeypatch.setattr(synthetic.Synthetic, "read", read)
    config = config_of({"name": "synthetic"}, on_bad="skip", max_bad=1.0)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(pipeline.train_stream(config, SPEC, seed=0).batches())


def test_repeated_augmentation_shows_each_image_so_often_in_a_row():
    source = {"name": "synthetic", "num_examples": 10, "num_classes": 10, "size": 20}
    config = config_of(source, batch_size=6, augment={"repeats": 3})
    batches = take(pipeline.train_stream(config, SPEC, seed=0).batches(), 5)
    labels = np.concatenate([b["label"] for b in batches]).reshape(10, 3)
    assert (labels == labels[:, :1]).all()
    assert sorted(labels[:, 0]) == list(range(10))
    first = batches[0]["image"][:3].reshape(3, -1)
    assert len(np.unique(first, axis=0)) == 3


def test_a_batch_shares_one_mixing_and_the_next_has_another():
    spec = SPEC | spec_of(mix=(5,))
    config = config_of({"name": "synthetic"}, augment={"mixup": 0.8, "cutmix": 1.0})
    rows = [b["mix"] for b in take(pipeline.train_stream(config, spec, 0).batches(), 6)]
    assert all((row == row[0]).all() for row in rows)
    assert len(np.unique([row[0] for row in rows], axis=0)) == 6


def test_evaluation_is_not_augmented():
    spec = SPEC | spec_of(mix=(5,), erase=(4,), erase_seed=(), jitter=(3, 2))
    stream = pipeline.eval_stream(config_of({"name": "synthetic"}), spec, seed=0)
    assert stream.spec.keys() == {*SPEC, "weight", "index"}


def test_an_evaluation_of_random_parts_is_the_same_in_every_pass():
    """And other parts than training sees, of every example another."""
    frame = {"name": "random_resized", "min_scale": 0.1, "max_scale": 0.2}
    one = {"name": "synthetic", "num_examples": 1, "size": 20}
    config = config_of(one, batch_size=1, eval_frame=frame, frame=frame)
    config["augment"] = {"flip": False}
    passes = [next(pipeline.eval_stream(config, SPEC, 0).batches()) for _ in range(2)]
    assert_same(passes[:1], passes[1:])
    seen = next(pipeline.train_stream(config, SPEC, seed=0).batches())
    assert (seen["image"] != passes[0]["image"]).any()


def test_decoded_images_may_be_kept(folder, monkeypatch):
    config = config_of({"name": "folder", "path": str(folder)})
    want = take(pipeline.train_stream(config, SPEC, seed=0).batches(), 9)
    stream = pipeline.train_stream(config | {"decoded_cache_gib": 1.0}, SPEC, seed=0)
    assert_same(take(stream.batches(), 9), want)
    monkeypatch.setattr(batches.decode, "open_image", None)  # no more decoding
    assert_same(take(stream.batches(), 9), want)


def test_a_cache_too_small_for_all_changes_no_pixel(folder):
    config = config_of({"name": "folder", "path": str(folder)})
    want = take(pipeline.train_stream(config, SPEC, seed=0).batches(), 9)
    small = config | {"decoded_cache_gib": 5 * 4 * 30 * 30 / 2**30}  # about half
    stream = pipeline.train_stream(small, SPEC, seed=0)
    assert_same(take(stream.batches(), 9), want)
    assert_same(take(stream.batches(4), 5), want[4:])
    assert 0 < len(stream.plan._kept) < 10


def test_images_written_anew_are_not_served_from_the_disk(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    config = config_of({"name": "folder", "path": str(tmp_path / "images")})
    config |= {"eval_cache": str(tmp_path / "cache")}
    before = list(pipeline.eval_stream(config, SPEC, seed=0).batches())
    Image.new("RGB", (25, 25)).save(tmp_path / "images" / "a" / "0.jpg")
    after = list(pipeline.eval_stream(config, SPEC, seed=0).batches())
    assert not after[0]["image"][0].any() and before[0]["image"][0].any()


@pytest.mark.parametrize("again", [True, False])
def test_batches_are_kept_for_a_second_pass_only(again):
    config = config_of({"name": "synthetic"})
    stream = pipeline.eval_stream(config, SPEC, seed=0, again=again)
    first = list(stream.batches())
    (kept,) = stream._kept.values()
    assert (kept._arrays is not None) == again
    assert_same(stream.batches(), first)


def test_two_processes_may_keep_the_same_evaluation(config, tmp_path):
    cached = config | {"eval_cache": str(tmp_path)}
    streams = [pipeline.eval_stream(cached, SPEC, seed=0) for _ in range(2)]
    first, second = (stream.batches() for stream in streams)
    both = [pair for pair in zip(first, second, strict=True)]
    assert_same([a for a, _ in both], [b for _, b in both])
    assert len(list(tmp_path.iterdir())) == 1


def test_evaluation_may_be_kept_on_disk(config, tmp_path, monkeypatch):
    cached = config | {"eval_cache": str(tmp_path)}
    want = list(pipeline.eval_stream(config, SPEC, seed=0).batches())
    stream = pipeline.eval_stream(cached, SPEC, seed=0)
    next(stream.batches())  # a pass that is not finished leaves nothing behind
    assert not any(tmp_path.iterdir())
    assert_same(stream.batches(), want)
    with monkeypatch.context() as patch:
        patch.setattr(batches.Batches, "iterate", None)  # all comes from the disk
        assert_same(pipeline.eval_stream(cached, SPEC, seed=0).batches(), want)
    other = pipeline.eval_stream(cached, SPEC, seed=1)  # other masks: kept apart
    assert (next(other.batches())["mask"] != want[0]["mask"]).any()


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({"batch_size": 6}, SPEC, "batch_size=6 cannot be split over 4 hosts"),
        ({}, spec_of(picture=(8, 8, 3)), "no 'picture'.*it has boxes, .*image"),
        ({"mask": {"name": "blocks"}}, SPEC, "no 'blocks'.*blockwise, none, random"),
        (
            {"mask": {"name": "random", "min_block": 2}},
            SPEC,
            "'random'.*no setting 'min_block'",
        ),
        ({"batch_size": 2}, SPEC, "batch_size=2 cannot be split over 4 hosts"),
        (
            {"dct_scaled": True, "decoded_cache_gib": 1.0},
            SPEC,
            "decoded_cache_gib keeps whole images and data.dct_scaled",
        ),
        ({"on_bad": "ignore"}, SPEC, "on_bad='ignore' must be one of error, skip"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, spec, message):
    config = config_of({"name": "synthetic"}, **changes)
    with pytest.raises(ValueError, match=message):
        next(pipeline.train_stream(config, spec, 0).batches(0, shard=(0, 4)))


def test_labels_are_refused_where_there_are_none(folder):
    config = config_of({"name": "folder", "path": str(folder / "a")})
    with pytest.raises(ValueError, match="needs labels"):
        pipeline.train_stream(config, SPEC, seed=0)
