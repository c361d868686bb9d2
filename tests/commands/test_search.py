"""A search tunes on one order of the classes by validation images, ends what falls behind, goes on, and says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.commands.app import main
from scripts.commands.configs import CONFIGS
from scripts.commands.report import report
from scripts.commands.search import Search, open_study, read_space, search, validated
from scripts.commands.values import at
from scripts.utils.errors import UserError
from scripts.utils.json_files import read_json

optuna = pytest.importorskip("optuna", reason="no Optuna: install the extra [search]")
KEYS = ("--source#sets", "['clusters','fibres']", "--source#train_per_class", "8", "--source#test_per_class", "4")
KEYS += ("--source#val_per_class", "4", "--backbone_epochs", "1", "--adapter_epochs", "1", "--finetune_epochs", "1")
KEYS += ("--backbone", "mobilenet_v2", "--network_def#sites", "['features.3','features.5']", "--image_size", "40")
KEYS += ("--memory_size", "8", "--batch_size", "8", "--device", "cpu")
SPACE = {
    "keys": {"optimizer#lr": {"low": 0.001, "high": 0.1, "log": True}, "finetune_epochs": {"low": 1, "high": 2}},
    "tune": {"planned_tasks#order": 1},
    "report": {"planned_tasks#order": 2},
    "trials": 2,
    "startup": 1,
    "seed": 1,
}


def written(folder: Path, **others: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**SPACE, **others}))
    return path


@pytest.mark.parametrize("page", sorted((CONFIGS / "search").glob("*.yaml")), ids=lambda page: page.stem)
def test_the_pages_are_read_and_name_keys_that_there_are(page: Path) -> None:
    space = read_space(page.stem)
    config = read_json(CONFIGS / "train.json", {"type": "object"}, "")
    config |= yaml.safe_load((CONFIGS / "parts" / "ridge.yaml").read_text())
    for key in (*space.keys, *space.tune, *space.report):
        assert at(config, key.rpartition("#")[0] or key) is not None


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"report": {"planned_tasks#order": 1}}, "reports on what it tunes on"),
        ({"keys": {"optimizer#lr": [1, 2]}}, "the range of optimizer#lr"),
    ],
)
def test_a_page_that_means_nothing_is_refused(others: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_space(str(written(tmp_path, **others)))
    with pytest.raises(UserError, match="there is no search 'gone': give one of closed_form, dynammo"):
        read_space("gone")


def test_a_search_that_goes_on_draws_other_values(tmp_path: Path) -> None:
    wanted = Search("generated", "dynammo", read_space(str(written(tmp_path))), (), tmp_path / "out")
    drawn = []
    for _ in range(3):  # three processes one after another
        trial = open_study(wanted).ask()
        drawn.append(wanted.space.suggest(trial)["optimizer#lr"])
    assert len(set(drawn)) == 3
    assert all(0.001 <= value <= 0.1 for value in drawn)


@pytest.mark.slow
@pytest.mark.parametrize("submit", [(), ("--submit", "local")], ids=["here", "jobs"])
def test_settings_are_tuned_on_one_order_and_reported_on_another(
    submit: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if submit:
        pytest.importorskip("submitit", reason="no submitit: install the extra [cluster]")
    space, folder = written(tmp_path), tmp_path / "out"
    words = ["search", "generated", "--space", str(space), "--seeds", "1", "--output", str(folder), *KEYS]
    words += ["--dataset_dir", str(tmp_path / "images"), *submit]
    assert main([*words, "--jobs", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Tuned on planned_tasks#order 1, on the mean class recall of validation images" in printed
    assert "Reported on planned_tasks#order 2, on test images." in printed
    with open(folder / "trials.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) >= 2 and {trial["state"] for trial in trials} <= {"complete", "pruned"}
    best = max((trial for trial in trials if trial["state"] == "complete"), key=lambda trial: float(trial["score"]))
    assert float(best["score"]) == pytest.approx((float(best["task 1"]) + float(best["task 2"])) / 2)
    content = json.loads((folder / "comparison.json").read_text())
    assert set(content["results"]) == {"as published", "tuned"}
    (tuned,) = (folder / "tuned").glob("*/*/config.json")
    config = json.loads(tuned.read_text())
    assert config["planned_tasks"]["order"] == 2
    assert config["optimizer"]["lr"] == pytest.approx(float(best["optimizer#lr"]), rel=1e-5)
    # called again it has nothing to try, and trains nothing
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.pt")}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.pt")} == before
    assert "Reported on planned_tasks#order 2" in Path(report(str(folder)).split(" in ")[1].split(" (")[0]).read_text()
    # a trial that falls behind is ended after the task
    runs = [path.parent for path in folder.glob("trials/*/*/tasks.json")]
    assert 0 <= validated(runs[0], 0) <= 1


def test_a_folder_with_another_search_is_refused(tmp_path: Path) -> None:
    page, out = str(written(tmp_path, trials=2, startup=1)), tmp_path / "out"
    open_study(Search("generated", "dynammo", read_space(page), KEYS, out))
    open_study(Search("generated", "dynammo", read_space(page, trials=9), KEYS, out))  # more trials go on in it
    for method, keys in (("acl", KEYS), ("dynammo", ())):
        with pytest.raises(UserError, match="out holds another search .dynammo on generated.*give another folder"):
            open_study(Search("generated", method, read_space(page), keys, out))


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_ended(tmp_path: Path) -> None:
    page = written(tmp_path, trials=2, startup=1, keys={"optimizer#lr": {"low": 0.001, "high": 0.1}})
    wanted = Search(
        "generated", "dynammo", read_space(str(page)), (*KEYS, "--dataset_dir", str(tmp_path / "i")), tmp_path
    )
    study = open_study(wanted)
    study.add_trial(
        optuna.trial.create_trial(
            params={"optimizer#lr": 0.05},
            distributions={"optimizer#lr": optuna.distributions.FloatDistribution(0.001, 0.1)},
            intermediate_values={1: 1.5, 2: 1.5},  # which no run reaches
            value=1.5,
        )
    )
    search(wanted)
    (pruned,) = study.get_trials(states=[optuna.trial.TrialState.PRUNED])
    assert list(pruned.intermediate_values) == [1]
    assert not (Path(pruned.user_attrs["folder"]) / "task_1" / "model.pt").exists()
