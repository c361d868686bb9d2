"""Alerts and the dashboard ask for figures that the doors give, in words that Prometheus reads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.node.metrics import Standing, figures
from scripts.deploy.queue import State
from scripts.deploy.service.metrics import Metrics

OPERATIONS = Path(__file__).resolve().parents[2] / "operations"
RULES = OPERATIONS / "prometheus" / "rules.yml"
DASHBOARD = OPERATIONS / "grafana" / "dashboard.json"
PROMTOOL = shutil.which("promtool")
WORDS = {"by", "or", "and", "sum", "rate", "increase", "delta", "clamp_min", "histogram_quantile"}
OF_PROMETHEUS = {"up"}
TOKEN = re.compile(
    r'\s*(?:(?P<name>[a-z_]+)|(?P<number>\d+(?:\.\d+)?)|(?P<matchers>\{(?:[a-z_]+=~?"[^"]*",?)+\})'
    r"|(?P<range>\[\d+[smhd]\])|(?P<operator>==|>=|<=|[<>*/,()]))"
)


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions() -> dict[str, str]:
    """Return all expressions, by what asks."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in panels():
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


def tokens(expression: str) -> Iterator[tuple[str, str]]:
    """Yield what an expression is made of; it fails at what it cannot be."""
    at = 0
    while expression[at:].strip():
        match = TOKEN.match(expression, at)
        assert match is not None and match.lastgroup is not None, f"{expression!r} at {expression[at:]!r}"
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The figures that the doors give, each with its labels."""
    service = Metrics(lambda: 1, lambda: "1", lambda: False, tmp_path_factory.mktemp("service"))
    service.observe("GET", "/infer/{model}", 200, 0.1)
    standing = Standing(None, {state: 1 for state in State}, 1.0, 1, 2)
    found: dict[str, set[str]] = {}
    for text in (service.text(), figures(standing, DriftMonitor(20, 0.01))):
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("asks", expressions())
def test_every_figure_that_is_asked_for_is_given(asks: str, given: dict[str, set[str]]) -> None:
    expression = expressions()[asks]
    found = list(tokens(expression))
    grouped = {word for group in re.findall(r"by \(([a-z_, ]+)\)", expression) for word in group.split(", ")}
    names = {text for kind, text in found if kind == "name"} - WORDS - grouped
    assert names and names <= given.keys() | OF_PROMETHEUS
    labels = {label for kind, text in found if kind == "matchers" for label in re.findall(r"([a-z_]+)=", text)}
    assert labels | grouped <= {"job", "le"}.union(*(given.get(name, set()) for name in names))
    depth = 0
    for _, text in found:
        depth += (text == "(") - (text == ")")
        assert depth >= 0
    assert depth == 0


def test_states_that_are_asked_for_are_states() -> None:
    asked = re.findall(r'state=~?"([^"]+)"', " ".join(expressions().values()))
    assert {state for text in asked for state in text.split("|")} <= set(State)


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    assert {"Drift", "QueueIsOld", "DiskFillsUp", "ResultsFailed"} <= set(names)


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= own
    assert sorted(panel["id"] for panel in panels()) == [*range(1, len(panels()) + 1)]


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool: install the Debian package prometheus")
def test_prometheus_itself_reads_all_of_it(tmp_path: Path) -> None:
    asked = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(expressions().values())]
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
    for words in (("rules", tmp_path / "asked.yml"), ("config", OPERATIONS / "prometheus" / "prometheus.yml")):
        done = subprocess.run([str(PROMTOOL), "check", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


FIRING = [
    ("ResultsFailed", 'node_images{state="failed"}', "0 0 1 1 1", "4m"),
    ("QueueIsOld", "node_waiting_seconds", "0 1000 1060 1120 1180 1240 1300 1360 1420", "8m"),
    ("Drift", "node_drift_alarms_total", "0 1 2 3", "3m"),
    ("DiskFillsUp", "node_disk_free_bytes", "5 5 5 5 5 5 5 5", "7m"),
    ("NodeStandsStill", "node_ready", "0 0 0 0 0 0 0 0", "7m"),
]


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool: install the Debian package prometheus")
@pytest.mark.parametrize(("alert", "series", "values", "at"), FIRING)
def test_alerts_fire_when_they_should_and_not_before(
    alert: str, series: str, values: str, at: str, tmp_path: Path
) -> None:
    given = [{"series": series, "values": values}, {"series": "node_disk_bytes", "values": "100x10"}]

    def is_quiet(moment: str) -> bool:
        asked = [{"eval_time": moment, "alertname": alert, "exp_alerts": []}]
        test = {"interval": "1m", "input_series": given, "alert_rule_test": asked}
        (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [test]}))
        command = [str(PROMTOOL), "test", "rules", str(tmp_path / "tests.yml")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 or f'alertname="{alert}"' in done.stdout + done.stderr
        return done.returncode == 0

    assert is_quiet("0m") and not is_quiet(at)
