"""Search for settings on one order of the classes, and report what they reach on another."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.commands.compare import (
    JOBS,
    RESULTS,
    Run,
    plan_runs,
    read_results,
    runs_failed,
    start_run,
    tell,
    train_unfinished,
)
from scripts.commands.configs import CONFIGS, read_config
from scripts.commands.found import find_data
from scripts.commands.launch import Launch, Started, here, on_cluster, stop
from scripts.commands.terminal import held_back, interruptible
from scripts.metrics.comparison import markdown
from scripts.utils.errors import GO_ON, UserError, install_error_hook
from scripts.utils.extras import of_extra
from scripts.utils.files import cannot_write, last_line, write_atomically, write_csv
from scripts.utils.sums import SUMS

if TYPE_CHECKING:
    from optuna import Study, Trial

STUDY = "search.db"
TRIALS = "trials"
LOG = "search.log"
ABOUT = "about"
DEFAULT, TUNED = "as published", "tuned"
PARTS = ("keys", "tune", "report", "trials", "startup", "seed")
_SECONDS_BETWEEN_LOOKS = 0.5
_HEARTBEAT, _GRACE = 30, 120  # seconds after which a trial whose process is gone is tried again


@dataclass(frozen=True)
class Space:
    """A page of ``configs/search``, read and checked.

    Attributes:
        keys: ranges by the places of keys.
        tune: keys of the runs that settings are tuned on.
        report: keys of the runs that they are reported on.
        trials: settings that are tried.
        startup: trials before any is pruned.
        seed: of the search and its trials.
    """

    keys: Mapping[str, Mapping[str, Any]]
    tune: Mapping[str, Any]
    report: Mapping[str, Any]
    trials: int
    startup: int
    seed: int

    def asked(self) -> dict[str, Any]:
        """Return what makes a search another one: its ranges, its data and its seed, in JSON's types."""
        parts = {"keys": self.keys, "tune": self.tune, "seed": self.seed}
        found: dict[str, Any] = json.loads(json.dumps(parts))
        return found

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return a value for each key."""
        return {key: _suggested(trial, key, wanted) for key, wanted in self.keys.items()}


@dataclass(frozen=True)
class Search:
    """What is to be searched.

    Attributes:
        data: see :func:`scripts.commands.found.find_data`.
        method: see :func:`scripts.commands.configs.method_files`.
        space: see :class:`Space`.
        keys: ``--key value`` words for all runs.
        output: gets the study, the trials and the table.
        seeds: of the runs that are reported.
        jobs: processes that search at a time.
        threads: of each training; ``None``: 1, or what a cluster's page says.
        submit: a cluster, see :func:`scripts.commands.launch.on_cluster`; ``None``: this machine.
        worker: which of the jobs this process is, from 0.
    """

    data: str
    method: str
    space: Space
    keys: tuple[str, ...]
    output: Path
    seeds: tuple[int, ...] = (1,)
    jobs: int = 1
    threads: int | None = None
    submit: str | None = None
    worker: int = 0

    def launch(self) -> Launch:
        """Return what starts its trainings.

        Raises:
            UserError: as :func:`scripts.commands.launch.on_cluster`.
        """
        if self.submit is not None:
            return on_cluster(self.submit, self.threads, self.output / JOBS)
        return here(self.threads or 1)

    def runs(
        self, where: Mapping[str, Any], values: Mapping[str, Any], seeds: Sequence[int], folder: Path
    ) -> list[Run]:
        """Return runs with values of keys over all others."""
        found = find_data(self.data)
        data = ",".join(map(str, found.files)) if found.keys else self.data
        words = [word for key, value in {**where, **values}.items() for word in (f"--{key}", _typed(value))]
        return plan_runs(data, [self.method], seeds, [*found.keys, *self.keys, *words], folder)


def read_space(name: str, trials: int | None = None) -> Space:
    """Read a page.

    Args:
        name: of a page in ``configs/search``, or a file.
        trials: in place of those of the page; ``None``: as many as it says.

    Raises:
        UserError: when there is none, or it means nothing.
    """
    known = {path.stem: path for path in sorted((CONFIGS / "search").glob("*.yaml"))}
    path = known.get(name, Path(name))
    if not path.is_file():
        raise UserError(f"there is no search '{name}': give one of {', '.join(known)}, or a YAML file (--space)")
    content = read_config(path)
    if missing := [part for part in PARTS if part not in content]:
        raise UserError(f"{path} lacks {', '.join(missing)}: it needs what configs/search/dynammo.yaml has")
    for key, wanted in content["keys"].items():
        if not isinstance(wanted, Mapping) or not ({"choices"} <= wanted.keys() or {"low", "high"} <= wanted.keys()):
            raise UserError(f"the range of {key} in {path} is {wanted!r}: give {{low, high}} or {{choices}}")
    if content["tune"] == content["report"]:
        raise UserError(
            f"{path} reports on what it tunes on, which makes settings look better than they are: give 'report' "
            "another order of the classes, or other data, than 'tune'"
        )
    return Space(**{**{part: content[part] for part in PARTS}, "trials": trials or content["trials"]})


def search(wanted: Search, show: bool = False) -> str:
    """Search, then train with what was found, and as published, on the order that is reported.

    A search that was stopped goes on; several processes may search in one folder at a time.

    Args:
        wanted: the search.
        show: return MONAI's line of a trial, and train nothing.

    Returns:
        The table, which says what was tuned on what, and where it is.

    Raises:
        UserError: when Optuna is not installed, there are no validation images, or runs failed.
    """
    if show:
        lows = {key: one.get("low", one.get("choices", [None])[0]) for key, one in wanted.space.keys.items()}
        (run,) = wanted.runs(wanted.space.tune, lows, [wanted.space.seed], wanted.output / TRIALS)
        return shlex.join(["python", "-m", "monai.bundle", *run.arguments()])
    install_error_hook(GO_ON)
    study = open_study(wanted)
    with interruptible():
        _search_all(wanted, study)
        best = _best(study)
        return _report(wanted, study, best)


def open_study(wanted: Search) -> Study:
    """Open the study of a folder, or begin it.

    Raises:
        UserError: when Optuna is not installed, or the folder cannot be written.
    """
    with of_extra("search", "a search needs Optuna"):
        import optuna
    try:
        wanted.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(wanted.output, error) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    retry = optuna.storages.RetryFailedTrialCallback()
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{wanted.output.absolute() / STUDY}",
        engine_kwargs={"connect_args": {"timeout": 60}},
        heartbeat_interval=_HEARTBEAT,
        grace_period=_GRACE,
        failed_trial_callback=retry,
    )
    space = wanted.space
    study = optuna.create_study(
        study_name="search",
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=space.startup, n_warmup_steps=0),
    )
    about = {"data": wanted.data, "method": wanted.method, "given": list(wanted.keys), "space": wanted.space.asked()}
    kept = study.user_attrs.get(ABOUT)
    if kept is None:
        study.set_user_attr(ABOUT, about)
    elif kept != about:
        raise UserError(
            f"{wanted.output} holds another search ({kept['method']} on {kept['data']}, or with other keys or ranges): "
            "give another folder (--output)"
        )
    # another seed for each process and start: with one alone a search that goes on would draw its first values anew
    state = (space.seed, wanted.worker, len(study.get_trials(deepcopy=False)))
    seed = int(np.random.SeedSequence(state).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=space.startup, seed=seed)
    return study


def _search_all(wanted: Search, study: Study) -> None:
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    if len(study.get_trials(deepcopy=False, states=ended)) >= wanted.space.trials:
        return
    launch = wanted.launch()
    others = [_another(wanted, worker) for worker in range(1, wanted.jobs)]
    try:
        most = MaxTrialsCallback(wanted.space.trials, ended)
        study.optimize(lambda trial: tried(wanted, trial, launch), callbacks=[most])
        for other in others:
            if other.wait():
                log = wanted.output / LOG
                raise UserError(f"a process that searches failed ({last_line(log)}): see {log}")
    finally:
        stop(others)


def _another(wanted: Search, worker: int) -> Started:
    """Start a process of this machine that searches in the same folder, and reports nothing."""
    order = {**vars(wanted), "space": vars(wanted.space), "output": str(wanted.output), "jobs": 1, "worker": worker}
    command = [sys.executable, "-m", "scripts.commands.search", json.dumps(order)]
    return here(wanted.threads or 1)(command, wanted.output / LOG)


def tried(wanted: Search, trial: Trial, launch: Launch) -> float:
    """Train with the values of a trial, look at each task once it is learnt, and stop where others were better.

    Returns:
        Mean class recall of the validation images of all classes learnt, 0..1, averaged over the tasks.

    Raises:
        TrialPruned: when the curve over tasks is below the median of those before.
        UserError: when the run fails, or there are no validation images.
    """
    from optuna import TrialPruned

    values = wanted.space.suggest(trial)
    (run,) = wanted.runs(wanted.space.tune, values, [wanted.space.seed], wanted.output / TRIALS / _digest(values))
    tell(run, f"trial {trial.number}: {', '.join(f'{key} {_typed(value)}' for key, value in values.items())}")
    trial.set_user_attr("folder", str(run.folder))
    scores: list[float] = []
    with held_back():
        process = start_run(run, launch)
    try:
        while process.poll() is None or _is_learnt(run.folder, len(scores)):
            if not _is_learnt(run.folder, len(scores)):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                continue
            scores.append(validated(run.folder, len(scores)))
            trial.report(scores[-1], len(scores))
            if trial.should_prune():
                tell(run, f"pruned after task {len(scores)}: {100 * scores[-1]:.1f} % mean class recall")
                raise TrialPruned
    finally:
        stop([process])
    if process.poll():
        raise UserError(f"trial {trial.number} failed ({last_line(run.log)}): see {run.log}")
    return sum(scores) / len(scores)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _is_learnt(run: Path, task: int) -> bool:
    """Say whether the model after a task, from 0, is there whole, and so is the list of its images."""
    if not (run / f"task_{task}" / SUMS).is_file() or not (run / "tasks.json").is_file():
        return False
    return len(json.loads((run / "tasks.json").read_text(encoding="utf-8"))) > task


def validated(run: Path, task: int) -> float:
    """Return the mean class recall, 0..1, of the model after a task on the validation images of the classes learnt.

    Raises:
        UserError: when there are none.
    """
    from scripts.deploy.inference.loading import load_image_classifier  # takes seconds
    from scripts.imaging.decoding.reasons import ImageRefused
    from scripts.learning.tasks.labels import require_one_class
    from scripts.learning.tasks.record import read_tasks, validation_items
    from scripts.metrics.accuracy_matrix import mean_class_recall

    items = validation_items(read_tasks(run)[: task + 1])
    require_one_class(items, "search")
    classifier = load_image_classifier(run / f"task_{task}")
    said = list(classifier.classify_all([item["image"] for item in items], 32))
    names = classifier.model.classes
    pairs = [
        (item["label"], names.index(one.predicted_class))
        for item, one in zip(items, said, strict=True)
        if not isinstance(one, ImageRefused)
    ]
    recall = mean_class_recall([label for label, _ in pairs], [guess for _, guess in pairs])
    if recall is None:
        raise UserError(
            "the data have no validation images, and settings are not tuned on test images: set a share of the "
            "training images apart (--planned_tasks#validation_fraction 0.1)"
        )
    return recall


def _best(study: Study) -> dict[str, Any]:
    """Return the values of the best trial that ended.

    Raises:
        UserError: when none has.
    """
    from optuna.trial import TrialState

    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise UserError("no trial has ended: search on")
    return study.best_trial.params


def _report(wanted: Search, study: Study, best: Mapping[str, Any]) -> str:
    folder, space = wanted.output, wanted.space
    by_name = {
        DEFAULT: wanted.runs(space.report, {}, wanted.seeds, folder / "published"),
        TUNED: wanted.runs(space.report, best, wanted.seeds, folder / "tuned" / _digest(best)),
    }
    runs = [run for listed in by_name.values() for run in listed]
    failed = train_unfinished(runs, folder, wanted.jobs, wanted.launch(), lambda: None)
    results = {name: next(iter(read_results(listed).values())) for name, listed in by_name.items()}
    tuned = said(wanted, study, best)
    text = f"{markdown(f'{wanted.data}, {wanted.method}', results, wanted.seeds, DEFAULT)}\n{tuned}\n"
    content = {"title": f"{wanted.data}, {wanted.method}", "seeds": wanted.seeds, "results": results, "tuned": tuned}
    write_atomically(folder / RESULTS, json.dumps(content, indent=1) + "\n")
    write_csv(folder / "trials.csv", _trials(study, list(space.keys)))
    write_atomically(folder / "search.md", text)
    if failed:
        print(text)
        raise runs_failed(failed, len(runs), folder)
    return f"{text}\nThe study, its trials and the table are in {folder}."


def said(wanted: Search, study: Study, best: Mapping[str, Any]) -> str:
    """Say what was tuned on what, with which values, and on what it is reported."""
    trials = study.get_trials(deepcopy=False)
    pruned = sum(trial.state.name == "PRUNED" for trial in trials)
    values = ", ".join(f"{key} {_typed(value)}" for key, value in best.items())
    tuned, reported = (_listed(part) for part in (wanted.space.tune, wanted.space.report))
    return (
        f"Tuned on {tuned}, on the mean class recall of validation images over the tasks ({len(trials)} trials, "
        f"{pruned} pruned, best {100 * study.best_value:.1f} %): {values}. Reported on {reported}, on test images."
    )


def _listed(keys: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_typed(value)}" for key, value in keys.items())


def _trials(study: Study, keys: Sequence[str]) -> list[list[Any]]:
    """Return the table of all trials: a header, and a row a trial with its curve over tasks."""
    trials = study.get_trials(deepcopy=False)
    tasks = max((len(trial.intermediate_values) for trial in trials), default=0)
    rows: list[list[Any]] = [["trial", "state", *keys, "score", *(f"task {number + 1}" for number in range(tasks))]]
    for trial in trials:
        curve = [trial.intermediate_values.get(number + 1) for number in range(tasks)]
        rows.append([trial.number, trial.state.name.lower(), *map(trial.params.get, keys), trial.value, *curve])
    return rows


def _suggested(trial: Trial, key: str, wanted: Mapping[str, Any]) -> Any:
    if "choices" in wanted:
        return trial.suggest_categorical(key, wanted["choices"])
    low, high, log, step = wanted["low"], wanted["high"], wanted.get("log", False), wanted.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, step=step or 1, log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def _typed(value: Any) -> str:
    """Return a value as it is typed after its key."""
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Search in a folder beside the process that has begun it."""
    order = json.loads((sys.argv[1:] if arguments is None else arguments)[0])
    places = {"output": Path(order["output"]), "keys": tuple(order["keys"]), "seeds": tuple(order["seeds"])}
    wanted = Search(**{**order, **places, "space": Space(**order["space"])})
    with interruptible():
        _search_all(wanted, open_study(wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
