"""Release notes of a version, for those who sign: what changed since the one it was learnt from, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.deploy.versions.card import markdown_table, percent, plain_settings

NOT_SHOWN = (
    "Subgroups: a version keeps no column of its images (age, sex, device), so nothing is said of any; "
    "`dynammo report` shows what its run can tell.",
    "Images of another scanner, clinic or population than those of the test images were not tested.",
)
_DONE = {"promoted": "served", "refused": "refused by the gate", "rolled back": "served again, one was taken back"}


def release_notes(
    record: Mapping[str, Any], before: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]
) -> str:
    """Return the notes, in Markdown, under the headings of FDA's PCCP and of the EU's AI Act, Annex IV.

    Args:
        record: of the version; see :class:`scripts.deploy.versions.store.Version`.
        before: of the version it was learnt from; ``None``: it is a first one.
        events: of the audit log, those of this version, oldest first.
    """
    number = record["number"]
    since = "a first version" if before is None else f"since version {before['number']}"
    sections = [
        f"# {record['name']}, version {number}: {since}",
        "## What changed\n\n*PCCP: description of modifications. Annex IV, 2 and 6.*\n\n" + _changes(record, before),
        "## What it tells, class by class (%)\n\n*PCCP: impact assessment. Annex IV, 2 (g) and 3.*\n\n"
        + _classes(record, before),
        "## What the gate said\n\n*PCCP: modification protocol. Annex IV, 2 (g) and 6.*\n\n" + _history(events),
        "## What is not shown\n\n" + "\n".join(f"- {line}" for line in NOT_SHOWN),
        "## Signed\n\n" + markdown_table(["role", "name", "date", "signature"], [["", "", "", ""]] * 2),
        f"The version's files: `sha256sum --check SHA256SUMS`; weights {record['files'].get('model.pt', 'not there')}.",
    ]
    return "\n\n".join(sections) + "\n"


def _changes(record: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    known = [] if before is None else [task["name"] for task in before["tasks"]]
    new = [task for task in record["tasks"] if task["name"] not in known]
    lines = [f"- learnt: {task['name']} ({', '.join(task['classes'])})" for task in new] or ["- no task was learnt"]
    if before is not None:
        old, now = (plain_settings(one["config"]) for one in (before, record))
        lines += [
            f"- setting {key}: {old.get(key, 'not set')} before, {now.get(key, 'not set')} now"
            for key in sorted(old.keys() | now.keys())
            if old.get(key) != now.get(key)
        ]
        same = before["files"].get("model.pt") == record["files"].get("model.pt")
        lines.append("- the weights are those of before" if same else "- the weights are others, all classes included")
    return "\n".join(lines)


def _classes(record: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """Return a table of recalls; those of before are of the test images of then."""
    tested, earlier = record["tested"], {} if before is None else before["tested"]["recalls"]
    rows = [
        [name, tested["images"].get(name, 0), percent(earlier.get(name)), percent(tested["recalls"].get(name))]
        + [_difference(earlier.get(name), tested["recalls"].get(name))]
        for task in record["tasks"]
        for name in task["classes"]
    ]
    mean = None if before is None else before["tested"]["mean_class_recall"]
    means = (mean, tested["mean_class_recall"])
    rows.append(["mean of the classes", sum(tested["images"].values()), *map(percent, means), _difference(*means)])
    return markdown_table(["class", "test images", "recall before", "recall now", "difference"], rows)


def _difference(before: float | None, now: float | None) -> str:
    return "" if before is None or now is None else f"{100 * (now - before):+.1f}"


def _history(events: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for event in (event for event in events if event["event"] in _DONE):
        lines.append(f"- {event['time']}, by {event['by']}: {_DONE[event['event']]}")
        if asked := event.get("asked"):
            lines.append("  - asked: " + ", ".join(f"{name} {value}" for name, value in asked.items()))
        lines += [f"  - objection: {objection}" for objection in event.get("objections", ())]
        if reason := event.get("reason"):
            lines.append(f"  - served all the same, because: {reason}")
    return "\n".join(lines) or "The gate was not asked yet: promote the version."
