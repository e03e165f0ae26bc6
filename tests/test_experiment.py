"""The experiment's plan: what runs when, on what."""

import importlib
import json
import pathlib
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(LAUNCH))  # as when it is run; its workers need that, too
    yield importlib.import_module("experiment")
    sys.path.remove(str(LAUNCH))


@pytest.fixture
def study(experiment, tmp_path):
    for name in ("cifar10_train.tar.gz", "cifar10_test.tar.gz", "caltech20a.tar"):
        (tmp_path / name).touch()
    return experiment.Study("cifar10", str(tmp_path), tmp_path)


@pytest.mark.parametrize("arms", [None, ("intermediate",), ("scratch", "pixels")])
def test_all_that_a_job_needs_is_planned_before_it(experiment, arms):
    planned = set()
    for job in experiment.plan(arms or experiment.ARMS):
        assert planned >= set(job.needs), job
        assert job.name not in planned
        planned.add(job.name)


def test_no_run_trains_on_what_chooses_its_settings_or_on_the_test(experiment, study):
    test = study.recipe("finetune").data.eval_source
    for labels in experiment.LABELS:
        config = experiment.finetune_config(study, "tokens", labels, "bold", seed=1)
        trained, chosen_by = config.data.source, config.data.eval_source
        assert trained.path == chosen_by.path != test.path
        assert (trained.part, chosen_by.part) == ("train", "test")
        assert chosen_by.labels_per_class == 0
    for stage in ("tokenizer", "pretrain", "probe"):
        source = study.recipe(stage).data.source
        assert (source.path, source.part) == (trained.path, "train")


def test_arms_differ_in_their_start_only(experiment, study):
    def told(arm):
        config = experiment.finetune_config(study, arm, "few", "gentle", seed=2)
        return config.to_dict() | {"init_from": "", "init_fresh": ""}

    assert all(told(arm) == told("scratch") for arm in experiment.ARMS)


def test_the_large_size_is_one_network_in_every_stage_and_another_plan(
    experiment, study
):
    large = study._replace(size="large")
    tokenizer, *stages = (
        large.recipe(stage).model
        for stage in ("tokenizer", "pretrain", "finetune", "probe")
    )
    for stage in stages:
        assert (stage.dim, stage.depth, stage.heads) == (384, 12, 6)
        assert stage.patch_size == tokenizer.patch_size == 4
    for labels in experiment.LABELS:
        small, tenfold = (
            experiment.finetune_config(one, "tokens", labels, "bold", seed=0)
            for one in (study, large)
        )
        assert tenfold.steps == 10 * small.steps
        assert tenfold.data == small.data
    experiment.check_plan(study)
    with pytest.raises(ValueError, match="another tokenizer, pretrain, .*--workdir"):
        experiment.check_plan(large)


def test_the_setting_is_that_of_the_best_validation_accuracy(experiment):
    tried = {f"finetune/tokens/few/{name}": 0.4 for name in experiment.SETTINGS}
    tried |= {"finetune/tokens/few/even": 0.5, "test/tokens/few/0": 0.9}
    results = {name: {"eval/top1": top1} for name, top1 in tried.items()}
    assert experiment.chosen(results, "tokens", "few") == "even"


def test_an_archive_that_is_not_there_is_named(experiment, tmp_path):
    study = experiment.Study("caltech20", str(tmp_path), tmp_path)
    with pytest.raises(ValueError, match=r"caltech20a.tar .* 0 times; .*--images"):
        study.recipe("pretrain")


def test_what_is_done_is_not_done_again_and_results_reach_those_who_need_them(
    experiment, study
):
    file = study.folder / "results.json"
    file.write_text(json.dumps({"a": {"n": 1}}))
    jobs = [
        experiment.Job("a", (), divide_by_zero, {}),
        experiment.Job("c", ("a", "b"), add_up, {"names": ["a", "b"]}),
        experiment.Job("b", ("a",), add_up, {"names": ["a"]}),
    ]
    results = experiment.jobs.run_all(study, jobs, workers=1)
    assert results == {"a": {"n": 1}, "b": {"n": 1}, "c": {"n": 2}}
    assert json.loads(file.read_text()) == results


def divide_by_zero(study, results):
    raise ZeroDivisionError


def add_up(study, results, names):
    return {"n": sum(results[name]["n"] for name in names)}


def test_tables_show_mean_and_deviation_and_what_is_missing(experiment, capsys):
    tables = experiment.experiment_tables
    results = {
        f"test/tokens/all/{i}": {"eval/top1": x} for i, x in enumerate((0.4, 0.5))
    }
    tables.show(results, ["scratch", "tokens"], ["all", "few"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
    assert ["tokens", "45.0 ± 7.1 (40.0, 50.0)", "–"] in cells
    assert ["scratch", "–", "–"] in cells
