"""The events of continual learning, beside ignite's and MONAI's."""

from __future__ import annotations

from ignite.engine import EventEnum


class ContinualEvents(EventEnum):
    """What happens between the epochs; ``engine.state.task`` and ``engine.state.stage`` count from 1.

    A stage called ``x`` has four events, so that the order of the handlers of one event never matters:

    - ``X_STARTED``: give the network what the stage needs;
    - ``X_PREPARED``: nothing is learnt yet, but data, optimizer and schedule exist (a stage in closed form has none);
    - ``X_COMPLETED``: look at what was learnt, while all of it is there;
    - ``X_SETTLED``: leave the network as the next stage finds it (hand over, merge).

    ``STAGE_PREPARED`` and ``STAGE_COMPLETED`` come after ``X_PREPARED`` and ``X_SETTLED`` of every stage. A task has
    ``TASK_STARTED``, ``TASK_COMPLETED`` (complete the memory), ``TASK_SETTLED`` (measure what is final) and, where one
    of its stages ran, ``TASK_EVALUATED`` (write it down). ``EPOCH_LEARNT`` comes once the last step of an epoch is
    done: its learning rate still holds, and it is not saved yet. ``PROGRESSED`` comes after each stage and each task,
    when the trainer already points at what is next: the moment to write a checkpoint. ``ROUND_STARTED`` comes where a
    trainer that has learnt all its tasks runs again, as federated clients do, before it learns the last task further.
    """

    RUN_STARTED = "run_started"
    RUN_COMPLETED = "run_completed"
    ROUND_STARTED = "round_started"
    TASK_STARTED = "task_started"
    PRETRAINING_STARTED = "pretraining_started"
    PRETRAINING_PREPARED = "pretraining_prepared"
    PRETRAINING_COMPLETED = "pretraining_completed"
    PRETRAINING_SETTLED = "pretraining_settled"
    BACKBONE_TRAINING_STARTED = "backbone_training_started"
    BACKBONE_TRAINING_PREPARED = "backbone_training_prepared"
    BACKBONE_TRAINING_COMPLETED = "backbone_training_completed"
    BACKBONE_TRAINING_SETTLED = "backbone_training_settled"
    ADAPTER_TUNING_STARTED = "adapter_tuning_started"
    ADAPTER_TUNING_PREPARED = "adapter_tuning_prepared"
    ADAPTER_TUNING_COMPLETED = "adapter_tuning_completed"
    ADAPTER_TUNING_SETTLED = "adapter_tuning_settled"
    ADAPTERS_AVERAGED = "adapters_averaged"
    BALANCED_FINETUNING_STARTED = "balanced_finetuning_started"
    BALANCED_FINETUNING_PREPARED = "balanced_finetuning_prepared"
    BALANCED_FINETUNING_COMPLETED = "balanced_finetuning_completed"
    BALANCED_FINETUNING_SETTLED = "balanced_finetuning_settled"
    CLOSED_FORM_STARTED = "closed_form_started"
    CLOSED_FORM_PREPARED = "closed_form_prepared"
    CLOSED_FORM_COMPLETED = "closed_form_completed"
    CLOSED_FORM_SETTLED = "closed_form_settled"
    TRAINING_STARTED = "training_started"
    TRAINING_PREPARED = "training_prepared"
    TRAINING_COMPLETED = "training_completed"
    TRAINING_SETTLED = "training_settled"
    STAGE_PREPARED = "stage_prepared"
    EPOCH_LEARNT = "epoch_learnt"
    STAGE_COMPLETED = "stage_completed"
    MEMORY_UPDATED = "memory_updated"
    TASK_COMPLETED = "task_completed"
    TASK_SETTLED = "task_settled"
    TASK_EVALUATED = "task_evaluated"
    PROGRESSED = "progressed"


# State attributes that count the events, so that e.g. ``TASK_COMPLETED(every=2)`` works.
EVENT_TO_ATTR = {
    event: "stage" if event in (ContinualEvents.STAGE_PREPARED, ContinualEvents.STAGE_COMPLETED) else "task"
    for event in ContinualEvents
    if event
    not in (
        *(ContinualEvents.RUN_STARTED, ContinualEvents.RUN_COMPLETED),
        *(ContinualEvents.ROUND_STARTED, ContinualEvents.PROGRESSED),
    )
}
