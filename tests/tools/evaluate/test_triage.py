"""Identification and ranking of studies, from numbers, reports or masks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dated_study import CM3, LUNG, foreign_report, save, study_on
from pydicom.sr.coding import Code
from scipy.stats import mannwhitneyu, spearmanr
from small_study import SmallStudy, small_study

from ct_triage.followup_priors import follow_up_on
from ct_triage.report import build_report
from ct_triage.results import write_results
from tools.evaluate.__main__ import main
from tools.evaluate.masks import MaskFile
from tools.evaluate.shares import shares_of

CLASSES = ["covid19"] * 6 + ["bacterial"] * 4 + ["normal"] * 5


def studies(trainings: int = 3) -> pd.DataFrame:
    random = np.random.default_rng(7)
    rows = []
    for training in range(trainings):
        for index, name in enumerate(CLASSES):
            sick = name == "covid19"
            truth = 10.0 * index + 5 if sick else 0.0
            rows.append(
                {
                    "case": f"c{index:02d}",
                    "training": f"seed {training}",
                    "class": name,
                    "probability": round(
                        float(np.clip(random.normal(0.4 + 0.3 * sick, 0.2), 0, 1)), 3
                    ),
                    "severity_percent": round(max(0.0, truth + random.normal(0, 8)), 2),
                    "truth_severity_percent": truth,
                }
            )
    return pd.DataFrame(rows)


def run(frame: pd.DataFrame, folder: Path, *options: str) -> int:
    frame.to_csv(folder / "list.csv", index=False)
    return main(["triage", str(folder / "list.csv"), "--output", str(folder / "out"), *options])


def test_table_2_and_figure_5(tmp_path: Path) -> None:
    frame = studies()
    assert run(frame, tmp_path) == 0
    each = pd.read_csv(tmp_path / "out" / "trainings.csv").set_index("training")
    for training, part in frame.groupby("training"):
        sick = part[part["class"] == "covid19"]
        for name, rest in (
            ("all others", part[part["class"] != "covid19"]),
            ("normal", part[part["class"] == "normal"]),
            ("bacterial", part[part["class"] == "bacterial"]),
        ):
            u = mannwhitneyu(sick["probability"], rest["probability"]).statistic
            area = u / len(sick) / len(rest)
            assert each.at[training, f"AUC vs {name}"] == pytest.approx(area)
        rho = spearmanr(sick["severity_percent"], sick["truth_severity_percent"]).statistic
        assert each.at[training, "Spearman"] == pytest.approx(rho)
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("metric")
    for metric in ("AUC vs all others", "Spearman"):
        assert summary.at[metric, "mean"] == pytest.approx(each[metric].mean())
        assert summary.at[metric, "std"] == pytest.approx(each[metric].std())
    confusion = pd.read_csv(tmp_path / "out" / "confusion.csv").set_index("class")
    first = frame[frame["training"] == "seed 0"]
    called = first[first["probability"] >= 0.5].groupby("class").size()
    assert confusion["positive"].to_dict() == {
        name: called.get(name, 0) for name in ("covid19", "bacterial", "normal")
    }
    assert confusion.sum(axis=1).to_dict() == {"covid19": 6, "bacterial": 4, "normal": 5}


def test_without_probability_the_severity_tells_studies_apart(tmp_path: Path) -> None:
    frame = studies(1).drop(columns=["probability", "training"])
    frame["severity_percent"] = frame["truth_severity_percent"]
    assert run(frame, tmp_path) == 0
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("metric")
    assert summary.at["AUC vs all others", "mean"] == 1
    assert summary.at["Spearman", "mean"] == pytest.approx(1)
    assert "severity score" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[f["class"] == "covid19"], "one class only (covid19)"),
        (lambda f: f[f["class"] != "covid19"], "no case of class covid19"),
        (lambda f: f.drop(columns="class"), "case c00 has no class"),
        (lambda f: f[["case", "training", "class"]], "nothing to tell studies apart by"),
        (lambda f: f.assign(probability=f["probability"].where(f.index != 3)), "case c03 has no"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "c00 seed 0 is listed twice"),
    ],
)
def test_bad_lists_are_refused(change, message: str, tmp_path: Path, capsys) -> None:
    assert run(change(studies()), tmp_path) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _write(study: SmallStudy, folder: Path) -> None:
    results = {"seg.dcm": study.seg(), "sr.dcm": study.report(), "result.json": study.result()}
    write_results(folder, results)


def test_masks_report_and_result_give_the_same_shares(tmp_path: Path) -> None:
    study = small_study()
    _write(study, tmp_path)
    expected = study.findings
    for row in (
        {"case": "a", "prediction": MaskFile(tmp_path / "seg.dcm")},
        {"case": "a", "report": tmp_path / "sr.dcm"},
        {"case": "a", "report": tmp_path / "result.json"},
    ):
        found = shares_of(row, "prediction")
        assert found is not None
        assert found.right == pytest.approx(expected.right_lung.lesion_share_percent, abs=1e-4)
        assert found.left == pytest.approx(expected.left_lung.lesion_share_percent, abs=1e-4)
        assert found.severity == pytest.approx(expected.severity_score_percent, abs=1e-4)


def test_a_report_with_priors_gives_the_shares_of_its_own_study(tmp_path: Path) -> None:
    prior, study = study_on("20200301", 7), study_on("20200401", 2)
    save(prior.seg(), tmp_path / "priors" / "seg.dcm")
    follow_up = follow_up_on(tmp_path / "priors", study.volume, study.findings)
    assert follow_up.time_points
    report = build_report(
        study.volume,
        study.segments,
        study.seg(),
        study.findings,
        study.quality,
        study.origin,
        follow_up,
    )
    found = shares_of({"case": "a", "report": save(report, tmp_path / "sr.dcm")}, "prediction")
    assert found is not None
    expected = study.findings
    assert found.right == pytest.approx(expected.right_lung.lesion_share_percent, abs=1e-4)
    assert found.severity == pytest.approx(expected.severity_score_percent, abs=1e-4)


def test_another_systems_report_gives_the_shares_of_its_volumes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lesion = Code("52988006", "SCT", "Lesion")
    groups = [(LUNG, None, None, 4000.0, CM3), (lesion, LUNG, None, 500.0, CM3)]
    file = save(foreign_report(study_on("20200301"), groups), tmp_path / "sr.dcm")
    found = shares_of({"case": "a", "report": file}, "prediction")
    assert found is not None
    assert found.severity == pytest.approx(12.5)
    assert np.isnan([found.right, found.left]).all()
    save(foreign_report(study_on("20200301"), groups[:1]), file)
    frame = pd.DataFrame({"case": ["a", "b"], "class": ["covid19", "normal"], "report": "sr.dcm"})
    assert run(frame, tmp_path) == 2
    assert "sr.dcm: tells no lesion shares: it has no meas" in capsys.readouterr().err


def test_masks_give_dice_of_positives(tmp_path: Path) -> None:
    rows = []
    for index, name in enumerate(("covid19", "normal")):
        study = small_study(lesions=name == "covid19")
        folder = tmp_path / name
        _write(study, folder)
        seg = f"{name}/seg.dcm"
        rows.append({"case": f"c{index}", "class": name, "truth": seg, "prediction": seg})
    assert run(pd.DataFrame(rows), tmp_path) == 0
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("metric")
    assert summary.at["Dice of positives", "mean"] == 1
    assert summary.at["AUC vs normal", "mean"] == 1
