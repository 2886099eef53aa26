"""Prometheus' configuration and rules by its own tools, and dashboards by ours."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboards import DASHBOARDS, expressions, panels
from repository import ROOT

RULES = sorted((ROOT / "ops/prometheus/rules").glob("*.yml"))
RULE_TESTS = sorted((ROOT / "ops/prometheus/tests").glob("*.test.yml"))
RECORDED = {
    rule["record"]
    for file in RULES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}


def promtool(*words: str) -> None:
    assert shutil.which("promtool"), "promtool is missing; on Debian: apt-get install prometheus"
    done = subprocess.run(["promtool", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_configuration_and_rules() -> None:
    promtool("check", "config", "ops/prometheus/prometheus.yml")


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda path: path.name)
def test_rules_say_what_they_should(file: Path) -> None:
    promtool("test", "rules", str(file))


def test_every_rule_has_a_test() -> None:
    tests = " ".join(file.read_text() for file in RULE_TESTS)
    rules = [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    names = {rule.get("alert") or rule["record"] for rule in rules}
    # Rates of buckets are tested through the quantiles that are made of them.
    assert {name for name in names if name not in tests and "_bucket:" not in name} == set()


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load((ROOT / "ops/prometheus/rules/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
            assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
            assert "for" in rule, rule["alert"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_can_be_read_by_a_person(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    assert dashboard["uid"]
    assert dashboard["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"], panel["title"]
        assert 80 not in [step["value"] for step in defaults["thresholds"]["steps"]], "Grafana's own default"
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
    for one, other in itertools.combinations(dashboard["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_dashboards_use_rules_that_exist() -> None:
    used = {
        name
        for file in DASHBOARDS
        for query in expressions(file)
        for name in re.findall(r"sluice:[\w:]+", query)
    }
    assert used - RECORDED == set()


def test_grafana_finds_what_it_is_given() -> None:
    folder = ROOT / "ops/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards/sluice.yaml").read_text())["providers"]
    compose: Any = yaml.safe_load((ROOT / "ops/compose/observability.yaml").read_text())["services"]
    mounted = {m["target"]: m["source"] for m in compose["grafana"]["volumes"] if isinstance(m, dict)}
    assert mounted[provider["options"]["path"]] == "./ops/grafana/dashboards"
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {file.name for file in DASHBOARDS}
    assert source["url"] == "http://prometheus:9090"
    interval = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())["global"][
        "scrape_interval"
    ]
    assert source["jsonData"]["timeInterval"] == interval
