import json
import sys
from pathlib import Path

import pytest

from tools.bench.__main__ import main
from tools.bench.measure import BenchError, cost_of
from tools.bench.report import check
from tools.bench.suite import spreads


def test_what_a_process_takes_is_told(tmp_path: Path) -> None:
    cost = cost_of([sys.executable, "-c", "sum(range(3 * 10**6)); print('done')"], tmp_path, 1)
    assert cost.output.strip() == "done"
    assert cost.cpu_s > 0


def test_a_failing_command_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such study')"]
    with pytest.raises(BenchError, match="exit code 1: no such study"):
        cost_of(command, tmp_path, 1)


def test_spread_over_runs() -> None:
    runs = [{"wall_s": 3.0}, {"wall_s": 1.0}, {"wall_s": 2.0}]
    assert spreads(runs) == {"wall_s": {"median": 2.0, "low": 1.0, "high": 3.0}}


def test_only_what_is_clearly_worse_fails() -> None:
    stored = {"a": 0.3, "b": 1.0, "gone": 1.0}
    assert check({"a": 0.35, "b": 0.5}, stored) == []
    (line,) = check({"a": 0.5, "b": 0.5, "new": 9.0}, stored)
    assert line.startswith("a: 0.50, stored 0.30")


def test_without_stored_results_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--stored", str(tmp_path / "none.json")]) == 1
    assert "run `make bench` first" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_on_small_studies(tmp_path: Path) -> None:
    options = ["--slices", "24", "30", "--matrix", "128", "--repeats", "1", "--threads", "1"]
    assert main(["run", "--output", str(tmp_path / "out"), *options]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["application"]) == {"24", "30"}
    assert {"import", "scan", "decode", "lungs", "lesions", "SEG", "SR"} <= set(results["stages"])
    assert "left_out" not in results["peers"]["stock_chain"]
    assert results["ratios"]["peak_gb_over_stock_chain"] > 0
    assert (tmp_path / "out" / "results.png").stat().st_size > 10_000
    assert "| lungs |" in (tmp_path / "out" / "results.md").read_text()
