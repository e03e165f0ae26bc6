"""Data sets prepared by TFDS: every record by index, damage named, no network."""

import concurrent.futures
import pathlib
import shutil

import numpy as np
import pytest

from beit_jax.data import sources
from beit_jax.data.sources import records
from tests.data.trees import png

FORMATS = ("tfrecord", "array_record")


def prepare(folder, file_format):
    """Writes 20 + 6 examples into three shards for each split."""
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    features = {
        "image": image,
        "label": tfds.features.ClassLabel(names=["cat", "dog", "eel"]),
        "map": tfds.features.LabeledImage(labels=4, shape=(None, None, 1)),
        "number": np.int64,
    }

    class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")
        url_infos = {}  # nothing to download, so no checksums beside the code

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {
                "train": self._generate_examples(20),
                "test": self._generate_examples(6),
            }

        def _generate_examples(self, count):
            for i in range(count):
                picture = np.full((5, 4, 3), i, np.uint8)
                classes = np.full((5, 4, 1), i % 4, np.uint8)
                yield (
                    i,
                    {
                        "image": picture,
                        "label": i % 3 if count == 20 else -1,
                        "map": classes,
                        "number": i,
                    },
                )

    builder = Pets(data_dir=str(folder), file_format=file_format)
    config = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=config)


@pytest.fixture(scope="module", params=FORMATS)
def prepared(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    prepare(folder, request.param)
    return folder


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(prepared, tmp_path / "copy")
    return tmp_path / "copy"


def pets(prepared, split="train", **settings):
    spec = {"name": "tfds", "dataset": "pets", "data_dir": str(prepared)}
    return sources.build({**spec, "split": split, **settings})


def shards(data_dir, split="train"):
    return sorted(pathlib.Path(data_dir).glob(f"pets/1.2.3/pets-{split}.*"))


def numbers(source):
    return [source.read(i).label for i in range(source.info.num_examples)]


def by_number(data_dir, split, **settings):
    """Reads the numbers 0..19 in place of the labels: they tell examples apart."""
    names = tuple(map(str, range(20)))
    settings = {"label_key": "number", "class_names": names, **settings}
    return pets(data_dir, split, **settings)


@pytest.mark.parametrize("split", ["train", "train[:50%]", "train[10%:55%]", "all"])
def test_examples_are_those_of_tfds_in_its_order(prepared, split):
    import tensorflow_datasets as tfds

    builder = tfds.builder("pets", data_dir=str(prepared))
    if builder.info.file_format.value == "tfrecord":
        theirs = builder.as_dataset(split=split).as_numpy_iterator()
    else:
        theirs = builder.as_data_source(split=split)
    assert numbers(by_number(prepared, split)) == [int(e["number"]) for e in theirs]


def test_sub_splits_share_nothing_and_miss_nothing(prepared):
    parts = [by_number(prepared, split) for split in ("train[:80%]", "train[80%:]")]
    assert [part.info.num_examples for part in parts] == [16, 4]
    assert sorted(numbers(parts[0]) + numbers(parts[1])) == list(range(20))


def test_images_and_label_maps_are_read_as_they_are_encoded(prepared):
    source = pets(prepared, label_map_key="map")
    assert source.info.name == "pets/1.2.3 train"
    assert source.info.class_names == ("cat", "dog", "eel")
    record = source.read(7)
    assert record.image[:4] == record.label_map[:4] == png(0)[:4]
    assert record.boxes is record.classes is None


def test_eight_threads_read_what_one_does(prepared):
    source = pets(prepared)
    alone = [source.read(i) for i in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.read, [*range(20)] * 20)) == alone * 20


def test_more_shards_than_may_be_open_are_read_all_the_same(prepared, monkeypatch):
    monkeypatch.setattr(records, "_MOST_OPEN", 1)
    source = by_number(prepared, "train")
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        read = list(threads.map(source.read, [*range(20)] * 20))
    assert sorted(r.label for r in read[:20]) == list(range(20))
    assert read == read[:20] * 20


def test_a_folder_is_a_data_set_too(prepared):
    source = pets(prepared, dataset=str(prepared / "pets" / "1.2.3"))
    assert source.info == pets(prepared).info


def test_subsets(prepared):
    few = pets(prepared, labels_per_class=2)
    assert sorted(numbers(few)) == [0, 0, 1, 1, 2, 2]
    assert pets(prepared, limit=5).info.num_examples == 5
    assert pets(prepared, part="test").info.num_examples == 2
    assert pets(prepared, "test", label_key="").read(0).label is None


def test_the_digest_tells_splits_and_subsets_apart(prepared):
    settings = [{}, {"split": "train[:50%]"}, {"split": "test"}, {"limit": 5}]
    settings += [{"limit": 5, "subset_seed": 1}]
    digests = {pets(prepared, **each).info.digest for each in settings}
    assert len(digests) == 5
    assert pets(prepared).info.digest in digests


def test_a_flipped_bit_is_named_by_file_and_record(copied):
    path = shards(copied)[1]
    data = bytearray(path.read_bytes())
    image = data.find(b"IHDR", 500)
    data[image if image > 0 else 1000] ^= 1  # ArrayRecord compresses its records
    path.write_bytes(data)
    source = pets(copied)
    bad = [message for i in range(20) if (message := failure(source, i))]
    assert len(bad) == 1
    assert str(path) in bad[0] and "is damaged" in bad[0]


def failure(source, index):
    try:
        source.read(index)
    except sources.BadExample as error:
        assert source.describe(index) in str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_cut_shard_is_named_at_the_start(copied, keep):
    path = shards(copied)[1]
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(ValueError, match=f"{path.name} .*copy or prepare that file"):
        pets(copied)


def test_a_missing_shard_is_named_at_the_start(copied):
    path = shards(copied)[1]
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing"):
        pets(copied)


def test_a_shard_of_another_split_is_named_at_the_start(copied):
    path = shards(copied)[1]
    shutil.copy(shards(copied, "test")[1], path)
    with pytest.raises(ValueError, match=f"{path.name} has 2 of . records"):
        pets(copied)


def test_a_label_of_none_of_the_classes_is_a_bad_example(prepared):
    source = pets(prepared, "test")
    with pytest.raises(
        sources.BadExample, match=r"label -1, which is outside \[0, 3\)"
    ):
        source.read(0)


def test_what_is_not_prepared_says_how_to_prepare_it(tmp_path):
    with pytest.raises(ValueError, match=r"no prepared.*builder\('mnist'.*prepare\(\)"):
        pets(tmp_path, dataset="mnist")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "val"}, "no split 'val' of pets; it has train, test"),
        ({"split": "train[:0%]"}, "has no examples"),
        ({"image_key": "picture"}, "image_key='picture'; there are image, label, map"),
        ({"image_key": "label"}, "image_key='label' is not an image"),
        ({"label_key": "image"}, "label_key='image' is not one whole number"),
        ({"label_key": "number"}, "'number' has no class names; set class_names"),
        ({"class_names": ("a", "b")}, "has its own 3 class names"),
        ({"data_dir": "gs://tfds-data"}, "must be on this machine's disks"),
    ],
)
def test_errors_name_value_and_rule(prepared, settings, message):
    with pytest.raises(ValueError, match=message):
        pets(prepared, **settings)


@pytest.mark.parametrize("size", [0, 40_000])
def test_the_checksum_is_that_of_tensorflows_records(tmp_path, size):
    import tensorflow as tf

    data = np.random.RandomState(size).bytes(size)
    with tf.io.TFRecordWriter(str(tmp_path / "file")) as writer:
        writer.write(data)
    assert records.TFRecords([str(tmp_path / "file")], [1]).read(0, 0) == data
