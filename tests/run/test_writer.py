"""What a run writes down, and what it tells a person."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from beit_jax.run.board import Board
from beit_jax.run.meter import Meter
from beit_jax.run.writer import Writer, read_last


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text().splitlines()


def write(workdir, first_step, steps):
    with Writer(workdir, first_step) as writer:
        for step in steps:
            writer.scalars(step, {"train/loss": step / 2})


def test_a_line_holds_a_step_and_its_numbers(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(3, {"train/loss": 0.5, "train/accuracy": 0.25})
    (line,) = lines(tmp_path)
    wanted = {"step": 3, "train/loss": 0.5, "train/accuracy": 0.25}
    assert json.loads(line) == wanted


def test_a_line_can_be_read_at_once(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(1, {"a": 1.0})
        assert len(lines(tmp_path)) == 1


def test_after_a_restart_each_step_is_told_once(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3, 4, 5])
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    write(tmp_path, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "train/lo')
    write(tmp_path, 2, [3])
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_number_that_json_does_not_know_becomes_null(value, tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(1, {"a": value, "b": 2.0})
    assert json.loads(lines(tmp_path)[0]) == {"step": 1, "a": None, "b": 2.0}


def test_a_warning_is_a_line_too(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.warning(7, "all is lost")
        writer.note("many words")
    assert json.loads(lines(tmp_path)[0]) == {"step": 7, "warning": "all is lost"}
    with Writer(tmp_path, 8):
        pass
    start, warning, note, again = (tmp_path / "notes.txt").read_text().splitlines()
    assert (warning, note) == ("step 7: WARNING: all is lost", "many words")
    assert start.startswith("from step 0 on") and again.startswith("from step 8 on")


def test_a_writer_that_is_not_enabled_writes_nothing(tmp_path):
    with Writer(tmp_path, 0, enabled=False) as writer:
        writer.scalars(1, {"a": 1.0})
        writer.warning(1, "hush")
        writer.note("hush")
        writer.pictures(1, {"p": np.zeros((1, 4, 4, 3), np.uint8)})
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_what_is_written_at_once(tmp_path):
    from tensorflow.compat.v1.train import summary_iterator

    with Writer(tmp_path, 4) as writer:
        writer.warning(5, "oh")
        writer.pictures(5, {"p": np.zeros((2, 8, 8, 3), np.uint8)})
        writer.scalars(5, {"train/loss": 2.5})
        (file,) = (tmp_path / "tensorboard").glob("events*")
        events = list(summary_iterator(str(file)))
    assert {event.step for event in events[1:]} == {5}
    values = [value for event in events for value in event.summary.value]
    names = [value.tag for value in values]
    assert names == ["warning/text_summary", "p", "train/loss"]
    assert values[-1].simple_value == 2.5


def test_a_full_disk_is_told_by_whoever_writes(tmp_path):
    """As /dev/full says it is; a thread that dies of it would hang the run."""
    board = Board(tmp_path / "tensorboard", 0)
    with open("/dev/full", "wb", 0) as full:
        board._events._py_recordio_writer._writer = full
        for _ in range(20):
            with pytest.raises(OSError, match="No space left"):
                board.scalar("a", 1.0, 1)


@pytest.mark.parametrize(
    "shape, size",
    [((4, 32, 96, 3), (384, 512)), ((2, 224, 448, 3), (448, 448))],
    ids=["tiny images are enlarged", "large images stay"],
)
def test_pictures_are_stacked_into_one_file(shape, size, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Writer(tmp_path, 0) as writer:
        writer.pictures(12, {"eval/prediction": images})
    with Image.open(tmp_path / "pictures" / "eval_prediction_0000012.png") as picture:
        pixels = np.asarray(picture)
    assert (pixels.shape[1], pixels.shape[0]) == size
    scale = size[0] // shape[2]
    stacked = np.concatenate(list(images))
    np.testing.assert_array_equal(pixels[::scale, ::scale], stacked)


def test_the_newest_line_of_a_kind_is_read(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(1, {"eval/top1": 0.5, "train/loss": 3.0})
        writer.scalars(2, {"eval/top1": 0.75})
        writer.scalars(3, {"train/loss": 2.0})
        writer.warning(3, "late")
    assert read_last(tmp_path, "eval/") == {"eval/top1": 0.75}
    assert read_last(tmp_path, "train/") == {"train/loss": 2.0}
    assert read_last(tmp_path, "test/") == {}
    both = {"eval/top1": 0.75, "train/loss": 2.0}
    assert read_last(tmp_path, "eval/", "train/", "test/") == both


def test_a_run_without_numbers_has_no_last_ones(tmp_path):
    assert read_last(tmp_path, "eval/") == {}


def test_reading_passes_over_a_line_that_was_cut_short(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(1, {"eval/top1": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "eval/to')
    assert read_last(tmp_path, "eval/") == {"eval/top1": 0.5}


def test_without_a_terminal_progress_is_plain_lines(capsys):
    with Meter("pretrain", total=40) as meter:
        meter.say("[bold] is no markup")
        values = {"train/loss": 3.14159, "train/accuracy": 0.5, "train/grad_norm": 9.0}
        meter.report(20, values, ("loss", "accuracy", "missing"))
    assert capsys.readouterr().out.splitlines() == [
        "[bold] is no markup",
        "pretrain  20/40  loss 3.142  accuracy 0.5",
    ]


def test_an_evaluation_is_told_as_one(capsys):
    with Meter("classify", total=40) as meter:
        meter.report(40, {"eval/loss": 1.5, "eval/top1": 0.5}, ("loss", "top1"))
    out = capsys.readouterr().out
    assert out == "classify  40/40  eval/loss 1.5  eval/top1 0.5\n"


def test_a_quiet_meter_says_nothing(capsys):
    with Meter("pretrain", total=40, quiet=True) as meter:
        meter.say("hello")
        meter.report(20, {"train/loss": 3.0}, ("loss",))
    assert capsys.readouterr().out == ""


def test_speed_counts_the_images_since_the_last_call_once_compiled(monkeypatch):
    clock = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = Meter("pretrain", total=40, quiet=True)
    speeds = [meter.speed(step, batch_size=8) for step in (0, 5, 10)]
    assert speeds == [{}, {}, {"train/images_per_second": 40.0}]


def test_the_time_left_goes_by_the_steps_after_the_first_stretch(monkeypatch, capsys):
    """The first stretch compiles: 100 s here, which say nothing of what is to come."""
    clock = iter([0.0, 100.0, 110.0])
    with Meter("pretrain", total=100) as meter:
        monkeypatch.setattr("time.perf_counter", lambda: next(clock))
        for step in (0, 20, 40):
            meter.speed(step, batch_size=8)
        meter.report(40, {}, ())
    assert capsys.readouterr().out.rstrip().endswith("ETA 0:30")
