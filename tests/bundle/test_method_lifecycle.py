"""Methods as they are shipped: stopped and gone on, learnt in parts, refused, and the model they save."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from scripts.commands.app import main
from scripts.commands.configs import known_methods, method_files
from scripts.commands.contribute import Given
from scripts.learning.engines import ContinualEvents
from scripts.model.folder import TrainedModel
from scripts.utils.errors import UserError

KINDS = ("dynammo+attention", "dynammo+shared", "dynammo+shared+ridge", "dynammo+hierarchical")  # of adapters, merges
METHODS = [*known_methods(), *KINDS]
JUDGED = "dynammo+lora+levels+ridge+without_memory+orientations+judged"
# one of each way to keep something from task to task; the others: `make test-slow`
QUICK = [
    *("dynammo", "acl", "icarl", "bic", "wa", "derpp", "ewc", "gem", "podnet", "der_expandable"),
    *("dynammo+lora", "dynammo+ridge", "first_task+ridge+ranpac", "acmap", JUDGED),
    *("dynammo+shared", "dynammo+hierarchical"),
]
FROZEN = ("frozen", "first_task", JUDGED)  # a later task has no epoch to stop in
# unequal tasks, one of them of a single class
SPLIT = [["clusters/nests", "clusters/rings"], ["fibres/parallel"], ["cells/large", "cells/small"]]
SMALL: dict[str, Any] = {
    "source#train_per_class": 4,
    "source#test_per_class": 2,
    "source#val_per_class": 2,
    "backbone": "mobilenet_v2",
    "network_def#sites": ["features.3", "features.5"],
    "backbone_epochs": 1,
    "adapter_epochs": 2,
    "finetune_epochs": 3,  # more than an image has views: features take its place
    "memory_size": 10,
    "image_size": 33,
    "batch_size": 8,
    "device": "cpu",
}


def configs(method: str) -> list[str | Path]:
    return ["configs/train.json", *method_files(method)]


def stop_after_a_first_epoch(workflow: ConfigWorkflow) -> None:
    """Stop once a stage has done its first epoch; gone on with, the run stops in the next stage."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    workflow.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), interrupt)


def turn_round(workflow: ConfigWorkflow) -> None:
    """Attach the handlers in reverse: events, not their order, say who comes before whom."""
    workflow.parser["train"]["handlers"].reverse()
    workflow.parser.parse(reset=True)


# what only passes from one event to the next, or is computed again when it is not there
PASSING = {
    "CheckpointHandler.images": "stands in the checkpoint itself",
    "CentroidMapHandler.before": "features before a merge, of the images at hand",
    "ClosedFormHandler.before": "features before a merge, of the images at hand",
    "DarkExperienceHandler.drawn": "the draws of a step",
    "EvaluationHandler.before": "what was measured before the task, for a further round of it",
    "ExtendedDarkExperienceHandler.drawn": "the draws of a step",
    "GradientProjectionHandler.exemplars": "loaded when the stage starts",
    "ProgressHandler.begun_at": "at which epoch the stage began in this process",
    "ProgressHandler.said": "when it last said how far it is",
    "ProgressHandler.started": "when the stage started",
    "ReportHandler.drawn": "the pictures of the newest task, drawn from the record",
    "ReportHandler.tasks": "the run's own, from its first epoch on",
    "TeacherHandler.teacher": "copied when the stage starts",
}


def watch_handlers(workflow: ConfigWorkflow, seen: list[dict[str, str]]) -> None:
    """Note what every handler that is not saved itself holds, from event to event, apart from what is saved."""
    trainer = workflow.trainer
    saved = {id(thing) for thing in workflow.parser.get_parsed_content("save").values()}
    handlers = [handler for handler in trainer.train_handlers if not hasattr(handler, "load_state_dict")]

    def look() -> None:
        seen.append(
            {
                f"{type(handler).__name__}.{name}": fingerprint(value)
                for handler in handlers
                for name, value in vars(handler).items()
                if id(value) not in saved
            }
        )

    for event in (ContinualEvents.TASK_STARTED, ContinualEvents.STAGE_PREPARED, ContinualEvents.TASK_COMPLETED):
        trainer.add_event_handler(event, look)


def fingerprint(value: Any) -> str:
    """Describe plain values and tensors; of an object only which one it is."""
    if isinstance(value, torch.Tensor):
        return f"{value.shape} {hashlib.sha256(value.detach().cpu().numpy().tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return str({key: fingerprint(own) for key, own in value.items()})
    if isinstance(value, list | tuple | set):
        return str([fingerprint(own) for own in value])
    return repr(value) if isinstance(value, str | int | float | Path | None) else str(id(value))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distillation") / "images"


@pytest.fixture
def train(images: Path, run_here: Callable[..., None]) -> Callable[..., None]:
    """Train a method on small images into a folder."""

    def run(method: str, output: Path, *arguments: Any, split: Any = SPLIT, **overrides: Any) -> None:
        own = {"dataset_dir": images, "output_dir": output, "split": split}
        least = {"ridge#least_images": 1} if "ridge" in method or method == "acmap" else {}
        run_here({**SMALL, **own, **least, **overrides}, configs(method), *arguments)

    return run


def all_but(*left_out: str, quick: Sequence[str] = QUICK) -> list[Any]:
    marked = [pytest.param(method, marks=[pytest.mark.slow] * (method not in quick)) for method in METHODS]
    return [method for method in marked if method.values[0] not in left_out]


# these learn all tasks at once: in parts it is another training
@pytest.mark.parametrize("method", all_but("joint", "linear_tune"))
def test_a_later_task_stopped_on_the_way_ends_with_the_weights_of_one_run_of_handlers_in_any_order(
    method: str, train: Callable[..., None], weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    later = {"split": SPLIT[2:], "previous": tmp_path / "earlier"}
    seen: list[dict[str, str]] = []

    def prepare(workflow: ConfigWorkflow) -> None:
        turn_round(workflow)
        watch_handlers(workflow, seen)

    train(method, tmp_path / "whole", prepare)
    changed = {name for after in seen for name, value in after.items() if value != seen[0][name]}
    assert changed <= PASSING.keys(), "what a handler learns is saved"
    train(method, tmp_path / "earlier", split=SPLIT[:2])
    stopped = []
    while not (tmp_path / "later/metrics.json").is_file():
        try:
            train(method, tmp_path / "later", stop_after_a_first_epoch, **later)
        except KeyboardInterrupt:
            kept = torch.load(tmp_path / "later/epoch.pt", weights_only=True)
            stopped.append((kept["stages_completed"], kept["epoch"]))
    assert bool(stopped) != method.startswith(FROZEN)
    assert stopped == [(stage, 1) for stage in sorted({stage for stage, _ in stopped})], "once in each stage"
    for name in ("model.pt", "checkpoint.pt"):
        assert weights_digest(tmp_path / "later" / name) == weights_digest(tmp_path / "whole" / name), name
    found = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert [len(task["classes"]) for task in found["tasks"]] == [2, 1, 2]
    assert found["task_incremental_final_accuracy"] >= found["final_accuracy"]
    assert ("softmax_accuracy" in found) == (method == "icarl")
    assert TrainedModel.open(tmp_path / "whole").network(torch.zeros(2, 3, 33, 33)).shape == (2, 5)


@pytest.mark.parametrize(
    "method",
    [*("dynammo", "acl", "icarl", "bic", "dynammo+ridge"), pytest.param("podnet", marks=pytest.mark.slow)],
)
def test_no_image_passes_the_network_twice_with_the_same_weights_in_a_task(
    method: str, train: Callable[..., None], tmp_path: Path
) -> None:
    passes: Counter[tuple[int, bytes, bytes]] = Counter()

    def watch(workflow: ConfigWorkflow) -> None:
        trainer = workflow.trainer
        backbone = trainer.continual_network.backbone

        def look(module: Any, inputs: Any, output: Any) -> None:
            weights = hashlib.sha256(repr(backbone.branches).encode())
            for value in backbone.state_dict().values():
                weights.update(value.numpy().tobytes())
            for image in inputs[0]:
                if image.any():  # what makes up a batch is no image
                    passes[trainer.state.task, weights.digest(), image.numpy().tobytes()] += 1

        backbone.stem.register_forward_hook(look)

    train(method, tmp_path / "run", watch)
    assert set(passes.values()) == {1}
    assert {task for task, _, _ in passes} == {1, 2, 3}


@pytest.mark.parametrize(
    ("method", "stage", "least"),
    [
        ("dynammo", "balanced_finetuning", 5),
        ("dynammo_others", "balanced_finetuning", 5),
        ("acl", "balanced_finetuning", 5),
        ("icarl", "training", 5),
        ("wa", "training", 5),
        ("bic", "training", 10),
        ("der", "training", 5),
        ("derpp", "training", 5),
        ("gem", "training", 5),
        ("ucir", "training", 5),
        ("podnet", "training", 5),
        ("der_expandable", "balanced_finetuning", 5),
    ],
)
def test_without_a_memory_they_are_refused_before_training(
    method: str, stage: str, least: int, images: Path, refusal: Callable[..., str], tmp_path: Path
) -> None:
    own = {"dataset_dir": images, "output_dir": tmp_path / "run", "split": SPLIT, "memory_size": 0}
    last = refusal({**SMALL, **own}, configs(method))
    assert f"stage {stage} needs a memory, but memory_size is 0: use at least {least}" in last


@pytest.mark.parametrize("method", all_but("bic", quick=("dynammo", "gem", "ucir", "dynammo+ridge")))
def test_one_image_a_class_is_enough_for_all_but_bic(method: str, train: Callable[..., None], tmp_path: Path) -> None:
    # of 32 pixels is left a map of one, which a batch of one image could not normalise
    few = {"planned_tasks#limit": 1, "memory_size": 5, "adapter_epochs": 1, "image_size": 32 if method == "gem" else 33}
    train(method, tmp_path / "run", split=[SPLIT[0], SPLIT[2]], **few)
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["accuracies"]) == 2


def test_bic_says_that_it_needs_two_images_a_class(images: Path, refusal: Callable[..., str], tmp_path: Path) -> None:
    own = {"dataset_dir": images, "output_dir": tmp_path / "run", "split": SPLIT, "planned_tasks#limit": 1}
    last = refusal({**SMALL, **own}, configs("bic"))
    assert "class clusters/nests of task" in last
    assert "has a single training image: BiC learns from one and holds one out" in last


def stop_before_the_sums_are_saved(workflow: ConfigWorkflow) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workflow.trainer.add_event_handler(ContinualEvents.CLOSED_FORM_COMPLETED, interrupt)


CHOICE = ("errors", "position", "verdicts")


def sums_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)["states"]["sums"]


@pytest.mark.parametrize(
    "method",
    [
        "dynammo+ridge+without_memory",
        JUDGED,
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("first_task+ridge+ranpac", "frozen+ridge+fecam")),
    ],
)
def test_without_a_memory_a_head_stopped_before_its_sums_are_saved_ends_as_in_one_run(
    method: str, train: Callable[..., None], weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    later = {"split": SPLIT[2:], "previous": tmp_path / "earlier", "memory_size": 0}
    train(method, tmp_path / "whole", memory_size=0)
    train(method, tmp_path / "earlier", split=SPLIT[:2], memory_size=0)
    with pytest.raises(KeyboardInterrupt):
        train(method, tmp_path / "later", stop_before_the_sums_are_saved, **later)
    train(method, tmp_path / "later", **later)
    for name in ("model.pt", "checkpoint.pt"):
        assert weights_digest(tmp_path / "later" / name) == weights_digest(tmp_path / "whole" / name), name
    expected, found = sums_of(tmp_path / "whole"), sums_of(tmp_path / "later")
    for one, other in zip(expected.pop("candidates", [expected]), found.pop("candidates", [found]), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("second", "first", "weights"))
    assert [expected.get(name) for name in CHOICE] == [found.get(name) for name in CHOICE]
    assert len(json.loads((tmp_path / "whole/metrics.json").read_text())["accuracies"]) == 3
    network = TrainedModel.open(tmp_path / "whole").network
    image = torch.zeros(2, 3, 33, 33)
    assert torch.allclose(torch.jit.script(network)(image), network(image), atol=1e-5)


def test_a_forgotten_image_is_out_of_the_sums_and_the_model(
    train: Callable[..., None], images: Path, test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = test_data / "weights" / "mobilenet_v2_imagenet_from_tflite_int8.pth"  # untrained, all images look alike
    train("frozen+ridge", tmp_path / "run", memory_size=0, weights=weights)
    before, model = sums_of(tmp_path / "run"), torch.load(tmp_path / "run/model.pt", weights_only=True)
    folder = images / "Pathology16/fibres/train/parallel"
    image = sorted(folder.iterdir())[0]
    capsys.readouterr()
    assert main(["forget", str(tmp_path / "run"), str(image), "--class", "fibres/parallel"]) == 0
    assert "Took 1 image out of the sums" in capsys.readouterr().out
    after, network = sums_of(tmp_path / "run"), TrainedModel.open(tmp_path / "run").network
    assert after["first"][2, -1].item() == pytest.approx(0.75 * before["first"][2, -1].item())
    assert torch.equal(after["first"][:2], before["first"][:2])
    assert not torch.equal(network.state_dict()["head.linear.weight"], model["head.linear.weight"])
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["states"]["network"]["weights"]
    assert torch.equal(network.state_dict()["head.linear.weight"], checkpoint["head.linear.weight"])
    other = sorted((images / "Pathology16/fibres/test/parallel").iterdir())[0]
    assert main(["forget", str(tmp_path / "run"), str(other), "--class", "fibres/parallel"]) == 1
    assert "was not learnt from these images" in capsys.readouterr().err
    assert torch.equal(sums_of(tmp_path / "run")["second"], after["second"])
    assert main(["forget", str(tmp_path / "run"), str(image), "--class", "fibres"]) == 1
    assert "unknown class 'fibres': give one of clusters/nests" in capsys.readouterr().err


def test_an_image_is_forgotten_where_adapters_have_a_rank_of_their_own(
    train: Callable[..., None], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("dynammo+lora+ridge+without_memory", tmp_path / "run", memory_size=0, **{"adapter#rank": 3})
    image = sorted((images / "Pathology16/cells/train/small").iterdir())[0]
    before = sums_of(tmp_path / "run")["first"][4, -1].item()
    assert main(["forget", str(tmp_path / "run"), str(image), "--class", "cells/small"]) == 0, capsys.readouterr().err
    assert sums_of(tmp_path / "run")["first"][4, -1].item() == pytest.approx(0.75 * before)


def test_where_candidates_are_judged_an_image_is_forgotten_in_all_and_no_site_adds_the_sums(
    train: Callable[..., None], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(JUDGED, run)
    image = sorted((images / "Pathology16/cells/train/small").iterdir())[0]
    before = sums_of(run)
    assert main(["forget", str(run), str(image), "--class", "cells/small"]) == 0, capsys.readouterr().err
    after = sums_of(run)
    assert [after[name] for name in CHOICE] == [before[name] for name in CHOICE]
    for one, other in zip(before["candidates"], after["candidates"], strict=True):
        assert other["first"][4, -1].item() == pytest.approx(0.75 * one["first"][4, -1].item())
    assert main(["suspects", str(run)]) == 0, capsys.readouterr().err
    with pytest.raises(UserError, match="several kinds of features.*without the parts 'orientations' and 'judged'"):
        Given.read(run)
    found = json.loads((run / "metrics.json").read_text())["candidates"]
    assert [len(verdicts) for verdicts in found] == [3, 3, 3]
    assert (run / "candidates.png").is_file()
    assert json.loads((run / "network.json").read_text())["adapter"] is None, "folded"
