"""The configuration: what it says of mistakes, and that its documents are those of the code."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError
from ct_triage.site import Site

APP = Path(__file__).parents[2] / "apps" / "ct_triage"
SITE = {
    "site": "North Hospital",
    "lesion_threshold": 0.45,
    "ct_class_bounds": [0.2, 0.4, 0.6],
    "calibration": {
        "date": "2026-11-01",
        "cases": 12,
        "held_out_cases": 12,
        "trusted": True,
        "model": "lesion_segmentation_2d 0.1.0 " + "ab" * 32,
        "remark": "any further key",
    },
}


def _write(folder: Path, content: Any, name: str = "config.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name


def test_the_shipped_file_holds_every_key_with_its_default() -> None:
    file = APP / "configuration.yaml"
    assert Configuration.read(file) == Configuration()

    def assert_complete(content: dict[str, Any], settings: Any) -> None:
        fields = type(settings).model_fields
        assert set(content) == {field.alias or name for name, field in fields.items()}
        for name, field in fields.items():
            if isinstance(value := content[field.alias or name], dict):
                assert_complete(value, getattr(settings, name))

    assert_complete(yaml.safe_load(file.read_text()), Configuration())


@pytest.mark.parametrize(
    ("model", "name"),
    [(Configuration, "configuration.schema.json"), (Site, "site.schema.json")],
)
def test_the_published_schema_is_that_of_the_code(model: Any, name: str) -> None:
    schema = json.loads((APP / "docs" / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == model.json_schema()


def test_the_published_schemas_accept_what_is_read() -> None:
    schemas = {
        name: json.loads((APP / "docs" / f"{name}.schema.json").read_text())
        for name in ("configuration", "site")
    }
    jsonschema.validate(SITE, schemas["site"])
    jsonschema.validate(
        yaml.safe_load((APP / "configuration.yaml").read_text()), schemas["configuration"]
    )
    content = {"site": "site.yaml", "series": {"rules": "rules.json"}}
    jsonschema.validate(content, schemas["configuration"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"sites": "site.yaml"}, schemas["configuration"])


def test_files_that_it_names_lie_beside_it(tmp_path: Path) -> None:
    _write(tmp_path, SITE, "north.yaml")
    rules = {"selections": [{"name": "thin", "conditions": {"SliceThickness": [0.5, 2]}}]}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    file = _write(tmp_path, {"site": "north.yaml", "series": {"rules": "rules.json"}})
    configuration = Configuration.read(file)
    assert configuration.lesion_threshold == 0.45
    assert configuration.ct_class_bounds == (0.2, 0.4, 0.6)
    assert configuration.series.rules is not None
    assert configuration.series.rules.selections[0].name == "thin"


def test_without_a_site_quarters_and_the_models_own_threshold_hold() -> None:
    assert Configuration().ct_class_bounds == (0.25, 0.5, 0.75)
    assert Configuration().lesion_threshold is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"treshholds": {}}, r"treshholds: unknown key; did you mean thresholds\?"),
        ({"models": {"lesion": "x"}}, r"models\.lesion: unknown key; did you mean lesions\?"),
        ({"outputs": {"pdf": True}}, r"outputs\.pdf: unknown key; known keys are seg, sr, json"),
        ({"outputs": dict.fromkeys(("seg", "sr", "json", "fhir"), False)}, "switch one on"),
        ({"thresholds": {"lesion": 45}}, r"thresholds\.lesion: .*less than 1"),
        ({"thresholds": {"lesion": "0.4"}}, r"thresholds\.lesion: .*valid number"),
        ({"thresholds": {"ct_class_bounds": [0.5, 0.25, 0.75]}}, "three ascending lesion shares"),
        ({"thresholds": {"ct_class_bounds": [25, 50, 75]}}, r"ct_class_bounds\.0: .*less than 1"),
        ({"identification": "maybe"}, "identification: .*valid boolean"),
        ({"models": {"lesions": "../elsewhere"}}, r"models\.lesions: "),
        ({"private_scheme": {"designator": "MINE"}}, r"private_scheme\.designator: "),
        ({"manufacturer": {"name": "Müller"}}, r"manufacturer\.name: "),
        ({"series": {"take": "all"}}, "'best' or 'every'"),
        ({"site": "nowhere.yaml"}, r"nowhere\.yaml: cannot be read"),
        (["a list"], "the file: "),
        (
            {"series": {"rules": {"selections": [{"conditions": {"SliceThicknes": 1}}]}}},
            "SliceThicknes is no DICOM keyword; did you mean SliceThickness",
        ),
        (
            {"series": {"rules": {"selections": [{"conditions": {"Modality": "(CT"}}]}}},
            "no regular expression",
        ),
        (
            {"series": {"rules": {"selections": [{"condition": {}}]}}},
            r"condition: unknown key; did you mean conditions\?",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Configuration.read(_write(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {lungs: [\n", "is not YAML in line 2"),
        ("identification: true\nidentification: false\n", "key 'identification' stands twice"),
        ("models: &m {}\noutputs: *m\n", r"in line 2 \(an alias"),
        ("models: !!python/object:os.system x\n", "line 1"),
        ("site: 2001-99-99\n", "is not YAML; correct it"),
        ("models: " + "[" * 5000, "nested too deeply"),
        ("thresholds: {min_lesion_ml: .inf}\n", r"thresholds\.min_lesion_ml: .*finite"),
        ("#" * 2_000_000, "settings are shorter"),
    ],
)
def test_a_file_that_is_no_plain_yaml(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Configuration.read(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_a_site_file_are_refused_by_name(tmp_path: Path) -> None:
    file = _write(tmp_path, {**SITE, "lesion_treshold": 0.3})
    with pytest.raises(ConfigurationError, match="did you mean lesion_threshold"):
        Site.read(file)
    record = Site.read(_write(tmp_path, SITE)).calibration
    assert record is not None
    assert record.model_extra == {"remark": "any further key"}


def test_two_answers_to_one_question_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, SITE, "site.yaml")
    file = _write(tmp_path, {"site": "site.yaml", "thresholds": {"lesion": 0.6}})
    with pytest.raises(ConfigurationError, match=r"thresholds\.lesion and the site file's"):
        Configuration.read(file)


def test_the_hash_is_that_of_the_settings_not_of_the_file(tmp_path: Path) -> None:
    first = _write(tmp_path, {"identification": False, "thresholds": {"lung": 0.5}}, "a.yaml")
    (tmp_path / "b.yaml").write_text("# a comment\nthresholds: {lung: 0.50}\n")
    same = {Configuration.read(file).sha256 for file in (first, tmp_path / "b.yaml")}
    assert len(same) == 1
    _write(tmp_path, SITE, "site.yaml")
    with_site = _write(tmp_path, {"thresholds": {"lung": 0.5}, "site": "site.yaml"}, "c.yaml")
    before = Configuration.read(with_site).sha256
    _write(tmp_path, {**SITE, "lesion_threshold": 0.46}, "site.yaml")
    assert len({*same, before, Configuration.read(with_site).sha256}) == 3
