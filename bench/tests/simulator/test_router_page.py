"""The report says what was simulated, keeps what it is not asked to make anew, and can be read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.simulator.router_page import shown
from sluice_bench.simulator.sim_figures import fair_shares, jain
from sluice_bench.simulator.sim_plan import questions

runner = CliRunner()


def simulate(*arguments: str) -> tuple[int, str]:
    result = runner.invoke(app, ["simulate", *arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def test_a_table_of_policies() -> None:
    status, output = simulate("--quick", "--policy", "sluice", "--policy", "dual-hash", "--load", "0.5")

    assert status == 0, output
    assert "sluice" in output
    assert "dual-hash" in output
    assert "requests/s" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "best"], "there is no policy 'best'; there are sluice, random"),
        (["--fault", "fire"], "write KIND:SHARE@START+SECONDS"),
        (["--fault", "death:2@1+1"], "a share from 0 to 1"),
        (["--shape", "tpu"], "there is no engine shape 'tpu'"),
        (["--tenants", "a,b"], "'a' is no number"),
        (["--classes", "urgent=1"], "'urgent' is no class"),
        (["--load", "0"], "must be positive"),
        (["--report", "--only", "weather"], "there is no section 'weather'"),
        (["--calibrate", "no-such.parquet"], "Cannot read no-such.parquet"),
    ],
)
def test_what_cannot_be_simulated_is_one_sentence(arguments: list[str], said: str) -> None:
    status, output = simulate("--quick", *arguments)

    assert status == 1
    assert said in output.replace("\n", " ")


def test_the_report_has_every_section_and_keeps_the_others(tmp_path: Path) -> None:
    for only in ("load-b2b-prefix", "clients", "classes"):
        status, output = simulate("--report", "--quick", "--only", only, "--output", str(tmp_path))
        assert status == 0, output
    page = (tmp_path / "router.md").read_text()
    rows = json.loads((tmp_path / "router.json").read_text())["results"]

    wanted = {question.name: question for question in questions(4, 4.0)}
    assert {row["question"] for row in rows} == {"load-b2b-prefix", "clients", "classes"}
    for name in ("load-b2b-prefix", "clients", "classes"):
        assert f"## {wanted[name].title}" in page
    assert "(router-load-b2b-prefix.svg)" in page
    assert "ideal" in (tmp_path / "router-load-b2b-prefix.svg").read_text()
    assert "| a fifth obeys | sluice |" in page
    assert "| 1.3 | sluice | bulk |" in page
    assert "`--quick` run" in page


def test_one_policy_can_be_simulated_anew(tmp_path: Path) -> None:
    report = ("--report", "--quick", "--only", "tenants", "--output", str(tmp_path))

    def rows() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads((tmp_path / "router.json").read_text())["results"]
        return found

    assert simulate(*report, "--policy", "least-outstanding")[0] == 0
    first = rows()
    assert simulate(*report, "--policy", "sluice")[0] == 0
    both = rows()

    assert first == both[: len(first)]
    assert len(both) == 2 * len(first)
    status, output = simulate(*report, "--policy", "best")
    assert status == 1
    assert "there is no policy 'best'" in output


def test_a_figure_shows_its_spread() -> None:
    assert shown([]) == "–"
    assert shown([0.5, 0.5, 0.5], "%") == "50.0%"
    assert shown([0.1, 0.4, 0.2], "%") == "20.0% (10.0%–40.0%)"


def test_fair_shares_fill_up_those_who_ask_for_little() -> None:
    assert fair_shares({"a": 50, "b": 1, "c": 100}, 61) == {"b": 1, "a": 30, "c": 30}
    assert sum(fair_shares({"a": 50, "b": 1, "c": 100}, 500).values()) == 151
    assert jain([1, 1, 1]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
