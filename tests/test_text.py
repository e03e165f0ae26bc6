"""Names that are not UTF-8, formulas or markup go through all that is written."""

import csv
import io
import json
import os

import numpy as np
import pytest
from absl import flags
from PIL import Image
from rich.console import Console

from beit_jax import check_data, options, text
from beit_jax.charts import confusion, curves, figure, neighbours
from beit_jax.data.frame import Frame
from beit_jax.data.ledger import Ledger
from beit_jax.data.ops.geometry import Box
from beit_jax.evaluate import evaluate
from beit_jax.knn import knn
from beit_jax.run.found import Prediction
from beit_jax.run.predictions import Asked, Labels, Reconstruction, Tokens
from beit_jax.run.writer import Writer, write_report
from beit_jax.train import train
from tests import tiny
from tests.data.trees import png
from tests.test_commands import command, finish

LATIN = os.fsdecode(b"caf\xe9")  # as the file system gives it
NAMES = ("=1+2", "[b] a", "a$^$b", "a,b\nc", LATIN, "中文 :cat:")


@pytest.fixture
def tree(tmp_path):
    """A class folder for each of NAMES, with four images called after it."""
    for number, name in enumerate(NAMES):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(4):
            file = tmp_path / "set" / name / f"{i} {name}.png"
            file.write_bytes(png(40 * number + i))
    return tmp_path / "set"


def rows(path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return [*csv.reader(file)]


@pytest.mark.filterwarnings("error:Glyph")  # that the font lacks
def test_a_run_goes_through_whatever_its_classes_are_called(tree, tmp_path, capsys):
    source = {"name": "folder", "path": str(tree)}
    config = tiny.config(
        "classify", steps=2, task__classes=len(NAMES), data__batch_size=4
    )
    config.data.source = config.data.eval_source = source
    with pytest.raises(ValueError, match="must have a name in UTF-8"):
        train(config, tmp_path / LATIN)
    run = tmp_path / "run"
    train(config, run)
    evaluate(run, out=str(tmp_path / "out"))
    table = rows(tmp_path / "out" / "per_class.csv")
    wanted = ["'=1+2", *NAMES[1:4], "caf\\udce9", NAMES[5]]
    assert [row[0] for row in table[1:]] == wanted
    knn(run, workdir=tmp_path / "knn", k=3)
    assert (tmp_path / "knn" / "neighbours.png").exists()
    assert json.loads((tmp_path / "knn" / "knn.json").read_text())["checkpoint"]


def test_a_data_set_is_told_whatever_its_names_are(tmp_path):
    """Class names of a list may have slashes, which end styles in markup."""
    found = {"name": "[/i]", "notes": ["[/b]"], "bad": {"[/i]": f"{LATIN} :cat:"}}
    found |= {"looked_at": 1, "images_per_class": {"[/i] a": 1}}
    console = Console(file=io.StringIO(), width=200)
    check_data.tell(found, console)
    told = console.file.getvalue()
    assert "bad: [/i]: caf\\udce9 :cat:" in told and "[/i] a 1" in told


def test_the_command_looks_at_names_that_are_not_utf_8(tree, tmp_path):
    (tree / LATIN / "broken.png").write_bytes(b"")
    made = command("check_data", "--data", tree, "--out", tmp_path / "out")
    code, out, err = finish(made)
    assert code == 65, err
    assert "caf\\udce9/broken.png:thefileisempty" in "".join(out.split())
    (bad,) = json.loads((tmp_path / "out" / "report.json").read_text())["bad"]
    assert bad == str(tree / LATIN / "broken.png")


def test_a_table_of_labels_keeps_names_and_computes_nothing(tmp_path):
    found = {"label": np.array(["=HYPERLINK(1)", "b"]), "probability": np.ones(2)}
    names = [f"/{LATIN}.jpg", "/a,b\nc.jpg", "-1.jpg"]
    image = np.zeros((2, 2, 3), np.uint8)
    made = [Prediction(name, "", image, found) for name in names]
    Labels.write(made, tmp_path, Asked("labels", top=1))
    table = rows(tmp_path / "labels.csv")
    assert [row[0] for row in table[1:]] == ["/caf\\udce9.jpg", names[1], "'-1.jpg"]
    assert table[1][1:] == ["'=HYPERLINK(1)", "1.0"]
    lines = (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == names


def test_arrays_keep_names_and_pictures_are_called_after_them(tmp_path):
    names = [f"{LATIN}.jpg", "x" * 255]
    image = np.zeros((2, 2, 3), np.uint8)
    frame = Frame((2, 2), (2, 2), Box(0, 0, 2, 2), (2, 2))
    made = [Prediction(n, "", image, {"tokens": image[:, 0]}, frame) for n in names]
    Tokens.write(made, tmp_path, Asked("tokens"))
    assert np.load(tmp_path / "tokens.npz")["names"].tolist() == names
    made = [one._replace(found={"picture": image}) for one in made]
    Reconstruction.write(made, tmp_path, Asked("reconstruction"))
    assert len([*(tmp_path / "reconstruction").iterdir()]) == 2


def test_what_is_skipped_is_a_line_that_is_written_once(tmp_path):
    sentence = f"{LATIN}/a\nb.jpg: is empty"
    for _ in range(2):  # as when a run goes on
        ledger = Ledger("skip", 1.0, 9)
        ledger.write_to(tmp_path / "skipped.txt")
        ledger.note(3, sentence)
    assert (tmp_path / "skipped.txt").read_text(encoding="utf-8") == (
        "caf\\udce9/a\\nb.jpg: is empty\n"
    )


def test_reports_and_warnings_take_any_name(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.warning(1, f"{LATIN} is odd")
    write_report(tmp_path, {f"{LATIN}/top1": 1.0}, {}, {"t": [(LATIN, "@x", -1.5)]})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {f"{LATIN}/top1": 1}
    assert rows(tmp_path / "t.csv") == [["caf\\udce9", "'@x", "-1.5"]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*NAMES, r"\$", "$x$", "a\tb"])
def test_every_name_is_drawn_as_it_is(name):
    image = np.zeros((1, 2, 8, 8, 3), np.uint8)
    curve = {name: {name: (np.arange(3), np.arange(3.0))}}
    for draw in (
        lambda: confusion.draw(np.eye(2, dtype=int), [name, "b"]),
        lambda: neighbours.draw(image[:, 0], [name], image[:, 1:], [[name]]),
        lambda: curves.draw(curve),
    ):
        assert draw().std() > 0


def test_a_run_that_begins_with_an_underscore_is_in_the_legend():
    line = np.arange(3), np.arange(3.0)
    one, other = (curves.draw({"loss": {name: line}}) for name in ("_a", "_b"))
    assert one.shape == other.shape and (one != other).any()


def test_letters_that_the_font_lacks_are_told_by_their_codes():
    assert figure.label("中é", 9) == "\\u4e2dé"
    assert figure.label("0123456789", 4) == "012…"


def test_one_line_is_one_line_and_no_command():
    assert text.one_line("a\nb\x1b[2J\u2028é") == "a\\nb\\x1b[2J\\u2028é"


@pytest.mark.parametrize(
    "given, paths",
    [
        ("a,b.jpg", ["a,b.jpg"]),  # there is one
        ("c,d.jpg", ["c", "d.jpg"]),
        ('"a,b.jpg",c', ["a,b.jpg", "c"]),
        ("", []),
    ],
)
def test_a_path_may_have_a_comma(given, paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a,b.jpg")
    assert options._Paths().parse(given) == paths
    assert issubclass(options._Paths, flags.ListParser)
