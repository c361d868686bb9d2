"""Keep a run in an MLflow server, too: one entry over all stages, which a run that goes on goes on in."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.handlers import MLFlowHandler

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.handlers.tensorboard import EPOCH_CURVES, TASK_CURVES
from scripts.learning.run_config import plain_settings, read_run_config, what_matters
from scripts.metrics.record import RunRecord
from scripts.utils.errors import UserError
from scripts.utils.files import CONFIG, DESCRIPTION, WEIGHTS, write_atomically

FILES = ("metrics.json", "timing.json", "history.csv", "accuracy_matrix.csv", CONFIG)
PICTURES = ("accuracy.png", "accuracy_matrix.png", "confusion_matrix.png", "curves.png")
TASKS, EPOCHS = "tasks_logged", "epochs_logged"
"""Tags that say how far an entry is."""
ENTRY = "tracking.json"
"""Names the entry of a run, in its folder."""
_LONGEST = 500  # of a parameter's value
_AT_ONCE = 100  # parameters in one request


class TrackingHandler(MLFlowHandler):
    """MONAI's handler, attached to the run rather than to MONAI's own start and end, which come once a stage.

    The entry has the settings as parameters, the curves (an epoch of the run, or a task, is a step), the accuracy
    matrix, pictures and tables as artifacts, and the model. The run's folder names its entry, which is gone on in until
    it is ended; nothing is logged twice: its tags say how far it is. No image is sent.

    Args:
        output_dir: the run's folder.
        record: what was measured.
        arguments: of MONAI's handler, such as ``tracking_uri``, ``experiment_name`` and ``run_name``.
    """

    def __init__(self, output_dir: str, record: RunRecord, **arguments: Any) -> None:
        arguments["run_name"] = arguments.get("run_name") or Path(output_dir).resolve().name
        super().__init__(**{**arguments, "artifacts": None, "close_on_complete": False})
        self.folder = Path(output_dir)
        self.record = record
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Any) -> None:
        """Begin with the run, log an epoch once it is saved and a task once it is written down, end with the run."""
        if engine.state.rank > 0:
            return
        engine.add_event_handler(ContinualEvents.RUN_STARTED, self.begin)
        engine.add_event_handler(ContinualEvents.STAGE_COMPLETED, self.log)
        engine.add_event_handler(ContinualEvents.PROGRESSED, self.log)
        engine.add_event_handler(ContinualEvents.RUN_COMPLETED, self.end)

    @property
    def entry(self) -> str:
        """The identifier of the entry that is open."""
        run: Any = self.cur_run
        return str(run.info.run_id)

    def begin(self, engine: ContinualTrainer) -> None:
        """Open the entry of the run, a new one if it has none, and log what a server that was away has missed.

        Raises:
            UserError: when there is no server, or it refuses.
        """
        try:
            self.cur_run = self._kept()
            if self.cur_run is None:
                if engine.tasks_completed == len(engine.tasks):
                    return  # it was ended before
                self.cur_run = self._new()
            self.start(engine)  # MONAI's own, which would look for an entry of this name where none is open
        except Exception as error:  # requests, MLflow and MONAI raise a dozen kinds
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"no entry can be opened at {self.client.tracking_uri} ({reason}): start an MLflow server there, give "
                "another --tracking_uri, or leave --tracking out"
            ) from error
        self._log_settings(plain_settings(what_matters(read_run_config(self.folder))))
        self.log(engine)

    def _kept(self) -> Any:
        """Return the entry that the run's folder names, unless it is ended."""
        file = self.folder / ENTRY
        if not file.is_file():
            return None
        run = self.client.get_run(json.loads(file.read_text(encoding="utf-8"))["run_id"])
        return None if run.info.status == self.run_finish_status else run

    def _new(self) -> Any:
        self._set_experiment()
        experiment: Any = self.experiment
        run = self.client.create_run(experiment.experiment_id, run_name=self.run_name)
        write_atomically(self.folder / ENTRY, json.dumps({"run_id": run.info.run_id}) + "\n")
        return run

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        known = self.client.get_run(self.entry).data.params
        listed = [(key.replace("#", "/"), str(value)[:_LONGEST]) for key, value in settings.items()]
        missing = [(key, value) for key, value in listed if key not in known]
        for start in range(0, len(missing), _AT_ONCE):
            self._log_params(dict(missing[start : start + _AT_ONCE]))

    def log(self, engine: ContinualTrainer) -> None:
        """Log the epochs and tasks that the entry does not have yet."""
        if self.cur_run is None:
            return
        tags = self.client.get_run(self.entry).data.tags
        epochs, tasks = (int(tags.get(name, 0)) for name in (EPOCHS, TASKS))
        for number, row in enumerate(self.record.history[epochs:], epochs + 1):
            named = {f"{name}/{row['stage']}": row[name] for name in EPOCH_CURVES if row[name] is not None}
            self._log_metrics(named, number)
            self._tag(EPOCHS, number)
        for number in range(tasks + 1, engine.tasks_completed + 1):
            until = self.record.matrix.until(number)
            figures = {name: getattr(until, name) for name in TASK_CURVES}
            row = until.accuracy_matrix[-1] if len(until) else []
            figures |= {f"accuracy/{task.name}": value for task, value in zip(engine.tasks, row, strict=False)}
            self._log_metrics({name: value for name, value in figures.items() if value is not None}, number)
            self._log_files(number)
            self._tag(TASKS, number)

    def _log_files(self, task: int) -> None:
        for name in (*FILES, *PICTURES):
            if (self.folder / name).is_file():
                self.client.log_artifact(self.entry, str(self.folder / name))
        for name in (WEIGHTS, DESCRIPTION):
            if (self.folder / name).is_file():
                self.client.log_artifact(self.entry, str(self.folder / name), "model")
        self.logger.info("Task %d is in %s.", task, self.client.tracking_uri)

    def _tag(self, name: str, value: int) -> None:
        self.client.set_tag(self.entry, name, value)

    def end(self) -> None:
        """End the entry."""
        if self.cur_run is not None:
            self.close()
