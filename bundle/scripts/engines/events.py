"""The events of continual learning, beside ignite's and MONAI's."""

from __future__ import annotations

from ignite.engine import EventEnum


class ContinualEvents(EventEnum):
    """What happens between the epochs; ``engine.state.task`` and ``engine.state.stage`` count from 1.

    A stage called ``x`` has the events ``X_STARTED`` and ``X_COMPLETED``. ``STAGE_PREPARED`` comes after the stage's
    data, optimizer and schedule exist (a stage in closed form has none). ``PROGRESSED`` comes after each stage and
    each task, when the trainer already points at what is next: the moment to write a checkpoint.
    """

    RUN_STARTED = "run_started"
    RUN_COMPLETED = "run_completed"
    TASK_STARTED = "task_started"
    BACKBONE_TRAINING_STARTED = "backbone_training_started"
    BACKBONE_TRAINING_COMPLETED = "backbone_training_completed"
    ADAPTER_TUNING_STARTED = "adapter_tuning_started"
    ADAPTER_TUNING_COMPLETED = "adapter_tuning_completed"
    ADAPTERS_AVERAGED = "adapters_averaged"
    BALANCED_FINETUNING_STARTED = "balanced_finetuning_started"
    BALANCED_FINETUNING_COMPLETED = "balanced_finetuning_completed"
    CLOSED_FORM_STARTED = "closed_form_started"
    CLOSED_FORM_COMPLETED = "closed_form_completed"
    TRAINING_STARTED = "training_started"
    TRAINING_COMPLETED = "training_completed"
    STAGE_PREPARED = "stage_prepared"
    STAGE_COMPLETED = "stage_completed"
    MEMORY_UPDATED = "memory_updated"
    TASK_COMPLETED = "task_completed"
    TASK_EVALUATED = "task_evaluated"
    PROGRESSED = "progressed"


# State attributes that count the events, so that e.g. ``TASK_COMPLETED(every=2)`` works.
EVENT_TO_ATTR = {
    event: "stage" if event in (ContinualEvents.STAGE_PREPARED, ContinualEvents.STAGE_COMPLETED) else "task"
    for event in ContinualEvents
    if event not in (ContinualEvents.RUN_STARTED, ContinualEvents.RUN_COMPLETED, ContinualEvents.PROGRESSED)
}
