"""Parquet, data sets of Hugging Face, shards of WebDataset: one set of images each."""

import concurrent.futures
import io
import json
import sys
import tarfile

import numpy as np
import pytest

from beit_jax.data import sources
from tests.data.trees import png

NAMES = ("cat", "dog")
LABELS = [0, 1, 1, 0, 1]
SEVERAL = [[0], [0, 1], [], [1], [1]]
IMAGES = [png(20 * number) for number in range(5)]


def parquet(folder, labels=LABELS):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    for number, rows in enumerate((slice(0, 2), slice(2, 5))):
        images = [{"bytes": image, "path": None} for image in IMAGES[rows]]
        table = pyarrow.table({"image": images, "label": labels[rows]})
        parquet.write_table(table, folder / f"{number}.parquet")
    return {"name": "parquet", "path": str(folder)}


def huggingface(folder, labels=LABELS):
    datasets = pytest.importorskip("datasets")
    one = datasets.ClassLabel(names=list(NAMES))
    kind = datasets.Sequence(one) if labels is SEVERAL else one
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    rows = {"image": [{"bytes": x, "path": None} for x in IMAGES], "label": labels}
    made = datasets.Dataset.from_dict(rows, features)
    datasets.DatasetDict({"train": made}).save_to_disk(str(folder))
    return {"name": "huggingface", "dataset": str(folder)}


def webdataset(folder, labels=LABELS, text=str, suffix="cls"):
    folder.mkdir(exist_ok=True)
    for shard, rows in enumerate((range(0, 2), range(2, 5))):
        with tarfile.open(folder / f"set-{shard:02d}.tar", "w") as tar:
            for row in rows:
                told = text(labels[row]).encode()
                for end, data in (("png", IMAGES[row]), (suffix, told)):
                    info = tarfile.TarInfo(f"a/{row}.{end}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return {"name": "webdataset", "path": str(folder / "set-{00..01}.tar")}


def in_json(folder, labels=LABELS):
    def text(label):
        return json.dumps({"label": label})

    return webdataset(folder, labels, text, "json")


KINDS = [parquet, huggingface, webdataset, in_json]
OF_SEVERAL = [parquet, huggingface, in_json]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_by_index_with_their_labels(kind, tmp_path):
    source = sources.build(kind(tmp_path / "set") | {"class_names": NAMES})
    assert source.info.class_names == NAMES and source.info.num_examples == 5
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        records = list(threads.map(source.read, [4, 0, 1, 2, 3] * 20))[:5]
    assert [record.image for record in records] == IMAGES[4:] + IMAGES[:4]
    assert [record.label for record in records] == LABELS[4:] + LABELS[:4]
    assert source.label_counts().tolist() == [2, 3]


@pytest.mark.parametrize("kind", OF_SEVERAL)
def test_rows_may_have_several_labels(kind, tmp_path):
    source = sources.build(kind(tmp_path / "set", SEVERAL) | {"class_names": NAMES})
    got = [source.read(row).get("labels").tolist() for row in range(5)]
    assert got == SEVERAL
    assert source.label_counts().tolist() == [2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_parts_and_few_labels_are_kept_as_of_folders(kind, tmp_path):
    spec = kind(tmp_path / "set")
    few = sources.build(spec | {"labels_per_class": 1})
    assert sorted(few.read(row).label for row in range(2)) == [0, 1]
    assert sources.build(spec | {"limit": 3}).info.num_examples == 3
    assert few.info.digest != sources.build(spec).info.digest
    plain = sources.build(spec | {"label_key": ""})
    assert plain.read(1) == sources.Record(IMAGES[1]) and not plain.info.class_names


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_have_the_same_digest_wherever_they_lie(kind, tmp_path):
    here, there = (sources.build(kind(tmp_path / x / "set")) for x in paths(tmp_path))
    assert here.info == there.info


def paths(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        yield name


def test_labels_by_name_get_their_numbers(tmp_path):
    spec = webdataset(tmp_path / "set", ["dog", "cat", "cat", "dog", "cat"])
    source = sources.build(spec)
    assert source.info.class_names == NAMES
    assert [source.read(row).label for row in range(5)] == [1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"name": "parquet", "path": "nowhere"}, "no .parquet file, nor a folder"),
        ({"name": "webdataset", "path": "no-{0..3}.tar"}, "no shard 'no-0.tar'"),
    ],
)
def test_what_is_not_there_is_named(spec, message):
    with pytest.raises(ValueError, match=message):
        sources.build(spec)


def test_a_column_that_there_is_not_is_named_with_those_that_there_are(tmp_path):
    spec = parquet(tmp_path / "set") | {"image_key": "img"}
    with pytest.raises(ValueError, match="no column 'img' in .*; it has image, label"):
        sources.build(spec)


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"404 Not Found")
    with pytest.raises(sources.DataError, match="a.parquet cannot be read: "):
        sources.build({"name": "parquet", "path": str(tmp_path)})


@pytest.mark.parametrize(
    "package, spec",
    [
        ("pyarrow.parquet", {"name": "parquet", "path": "x"}),
        ("datasets", {"name": "huggingface", "dataset": "x"}),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(package, spec, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs the package {package}: pip install"):
        sources.build(spec)


def test_shards_that_webdataset_wrote_are_read(tmp_path):
    """The peer's writer, and what its own reader gives."""
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(str(tmp_path / "w-%03d.tar"), maxcount=2, verbose=0) as sink:
        for row, image in enumerate(IMAGES):
            sink.write({"__key__": f"{row:04d}", "png": image, "cls": LABELS[row]})
    source = sources.build({"name": "webdataset", "path": str(tmp_path)})
    url = str(tmp_path / "w-{000..002}.tar")
    theirs = [*wds.WebDataset(url, shardshuffle=False)]
    records = [source.read(row) for row in range(5)]
    assert [record.image for record in records] == [one["png"] for one in theirs]
    assert [record.label for record in records] == [int(one["cls"]) for one in theirs]
    assert np.array_equal(source.label_counts(), [2, 3])
