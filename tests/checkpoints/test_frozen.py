"""Networks that a run uses and never trains stay the ones that it began with."""

import shutil

import jax
import numpy as np
import pytest

from beit_jax.checkpoints import frozen, steps, write
from beit_jax.checkpoints.foreign import files
from beit_jax.checkpoints.read import restore
from beit_jax.evaluate import evaluate
from beit_jax.train import train
from tests import tiny

KIND = {"network": "convolutions", "patch_size": 4, "restart_below": 0.0}
TEST = {"data__eval_source": {"name": "synthetic", "num_examples": 12}}


def tokenizer(seed: int, folder):
    """Six steps of a VQ-VAE that another project's file can hold."""
    model = tiny.TASKS["tokenizer"]["model"] | KIND
    config = tiny.config("tokenizer", seed=seed, model=model)
    train(config, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Two runs of as many steps, and files of another project made of them."""
    made = []
    for seed in (0, 1):
        run = tokenizer(seed, tmp_path_factory.mktemp(f"tokenizer_{seed}"))
        file = run / "vqvae.npz"
        write.write(restore(run), file, "official")
        made.append((run, file))
    return made


def pretraining(checkpoint, **changes):
    target = {"name": "tokens", "checkpoint": str(checkpoint), "image_size": 16}
    return tiny.config("pretrain", task__target=target, **TEST, **changes)


@pytest.mark.parametrize("kind", ["run", "file"])
def test_a_run_neither_resumes_nor_is_measured_on_another_tokenizer(
    kind, tokenizers, tmp_path
):
    """Put in the same place, of as many steps: nothing but its arrays tells."""
    (run, file), (other_run, other_file) = tokenizers
    place = tmp_path / ("tokenizer" if kind == "run" else "tokenizer.npz")

    def put(folder, single):
        shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)
        if kind == "run":
            shutil.copytree(folder / "checkpoints", place / "checkpoints")
        else:
            shutil.copy(single, place)

    def resume():
        return train(pretraining(place, steps=4), tmp_path / "run", quiet=True)

    put(run, file)
    want = resume()
    put(other_run, other_file)
    for go_on in (resume, lambda: evaluate(tmp_path / "run")):
        with pytest.raises(ValueError, match="another frozen target: .*SHA-256"):
            go_on()
    put(run, file)
    assert evaluate(tmp_path / "run") == resume() == want


def test_a_file_is_read_once_at_the_start_of_a_run(tokenizers, tmp_path, monkeypatch):
    read, seen = files.read, []

    def counted(path):
        seen.append(path)
        return read(path)

    monkeypatch.setattr(files, "read", counted)
    train(pretraining(tokenizers[0][1], steps=1), tmp_path, quiet=True)
    assert seen == [tokenizers[0][1]]


def test_a_digest_is_of_names_shapes_and_numbers(tokenizers):
    run, file = (frozen.Frozen(path) for path in tokenizers[0])
    assert run.digest == frozen.Frozen(tokenizers[0][0]).digest
    assert len({run.digest, *(frozen.Frozen(x[0]).digest for x in tokenizers)}) == 2
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), file.shapes())
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), file.load())


def test_pixels_that_a_tokenizer_sees_otherwise_make_it_another(tokenizers):
    record = frozen.Frozen(tokenizers[0][0]).record()
    other = record | {"model": record["model"] | {"pixels": "imagenet"}}
    with pytest.raises(ValueError, match="model.pixels='half', not 'imagenet'"):
        frozen.compare({"target": other}, {"frozen": {"target": record}}, "a run")
    with pytest.raises(ValueError, match="trained with another frozen target: none"):
        frozen.compare({"target": other}, {"frozen": {}}, "a run")


def test_a_run_from_before_there_were_digests_goes_on_with_a_note(tokenizers):
    record = frozen.Frozen(tokenizers[0][0]).record()
    (note,) = frozen.compare({"target": record}, {"frozen_step": 6}, "a run")
    assert "does not tell the digest" in note
    with pytest.raises(ValueError, match="frozen weights of step 5, .*/6; name that"):
        frozen.compare({"target": record}, {"frozen_step": 5}, "a run")
    assert frozen.compare({"target": record}, {"step": 0}, "a file") == []


def test_a_run_that_trains_on_does_not_move_what_was_settled(tokenizers, tmp_path):
    shutil.copytree(tokenizers[0][0] / "checkpoints", tmp_path / "checkpoints")
    network = frozen.Frozen(tmp_path)
    model = tiny.TASKS["tokenizer"]["model"] | KIND
    changes = {"steps": 7, "checkpoint__keep": 2, "model": model}
    train(tiny.config("tokenizer", **changes), tmp_path, quiet=True)
    want = steps.restore_params(tokenizers[0][0]).params
    jax.tree.map(np.testing.assert_array_equal, network.load()["params"], want)
