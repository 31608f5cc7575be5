"""Damaged configurations, site files and selection rules: settings, or one line that says why."""

import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import HANG_SECONDS, TEXTS
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError
from ct_triage.selection import Rules
from ct_triage.site import Site
from ct_triage.strict import StrictModel

SITE = {
    "site": "North Hospital",
    "lesion_threshold": 0.45,
    "ct_class_bounds": [0.2, 0.4, 0.6],
    "calibration": {"date": "2026-11-01", "cases": 12, "trusted": True, "model": "m 1 ab"},
}
RULES = {
    "selections": [
        {"name": "thin", "conditions": {"Modality": "(?i)CT", "SliceThickness": [1, 2]}},
        {"name": "any", "conditions": {"ImageOrientationPatient": "Axial", "SeriesNumber": 3}},
    ]
}
CONFIGURATION = {
    **json.loads(Configuration().model_dump_json(by_alias=True)),
    "site": None,
    "series": {"take": "best", "rules": RULES},
}
# Texts that YAML or a reader of settings may take for something else.
TRAPS = [
    "2001-99-99", "!!python/object:os.system x", "!!binary /w==", "!!set {a}", "&a [*a]", "*a",
    "1:99:99", "9" * 5000, "0x", "1e999", ".nan", ".inf", "~", "<<: {a: 1}", "a: 1\na: 2", "? [a]",
    "[" * 500, "{" * 500, "\\uD800", "\ufeff", "a\nb: c", "%YAML 9.9", "---\n---", "- \t- x",
    "../x", "(a+)+$", "(a|a)*b", "((a{1,99}){1,99}){1,99}", "[", "(?P<x>", "\\", "(?<=a*)b",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(TRAPS + TEXTS)
    | st.text(max_size=20)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner)
)
edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["value", "remove", "rename", "add"]),
        values,
        st.text(max_size=12) | st.sampled_from(["lesion", "json", "Modality", "site", "name"]),
    ),
    max_size=4,
)
texts = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(TRAPS) | st.text(max_size=8)),
    max_size=2,
)


def _edited(content: Any, changes: list[tuple]) -> Any:
    """Change places anywhere in the tree of settings."""
    content = json.loads(json.dumps(content))
    for place, kind, value, name in changes:
        holders = list(_places(content))
        if not holders:
            break
        holder, key = holders[int(place * len(holders))]
        if kind == "value":
            holder[key] = value
        elif kind == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(value)
        elif kind == "rename":
            holder[name] = holder.pop(key)
        else:
            holder[name] = value
    return content


def _places(content: Any) -> Any:
    """Every value of a tree, as its holder and the key that it has there."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _written(content: Any, inserts: list[tuple]) -> str:
    text = yaml.safe_dump(content, allow_unicode=True)
    for place, insert in inserts:
        at = int(place * len(text))
        text = text[:at] + insert + text[at:]
    return text


def _read(model: type[StrictModel], text: str) -> Any:
    """Read settings; None where they are refused, in one line that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "settings.yaml")
        file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
        signal.alarm(HANG_SECONDS)
        try:
            return model.read(file)
        except ConfigurationError as error:
            told = str(error)
        finally:
            signal.alarm(0)
        assert len(told.splitlines()) == 1
        assert told.startswith(str(file))
        assert len(told) < 20_000
        return None


@pytest.mark.filterwarnings("ignore")
@given(changes=edits, inserts=texts)
def test_configurations(changes: list[tuple], inserts: list[tuple]) -> None:
    read = _read(Configuration, _written(_edited(CONFIGURATION, changes), inserts))
    if read is not None:
        assert len(read.sha256) == 64
        json.loads(read.model_dump_json(), parse_constant=_refuse)
        low, middle, high = read.ct_class_bounds
        assert 0 < low < middle < high < 1


@pytest.mark.filterwarnings("ignore")
@given(changes=edits, inserts=texts)
def test_site_files(changes: list[tuple], inserts: list[tuple]) -> None:
    read = _read(Site, _written(_edited(SITE, changes), inserts))
    if read is not None:
        json.loads(read.model_dump_json(), parse_constant=_refuse)
        assert read.lesion_threshold is None or 0 < read.lesion_threshold < 1


@pytest.mark.filterwarnings("ignore")
@given(
    changes=edits,
    text=st.sampled_from(["CT", "a" * 40 + "!", "THORAX 1.0 B30f", "\u5c71"]),
    number=st.sampled_from([0, 3, -1.5, 1e300]),
)
def test_selection_rules(changes: list[tuple], text: str, number: float) -> None:
    rules = _read(Rules, _written(_edited(RULES, changes), []))
    if rules is None:
        return
    header = Dataset()
    header.Modality, header.SeriesDescription, header.ImageType = text, text, [text, text]
    header.SliceThickness, header.SeriesNumber = number, int(min(number, 99))
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    signal.alarm(HANG_SECONDS)
    try:
        rank = rules.rank(header)
        assert rank is None or 0 <= rank < len(rules.selections)
    except ConfigurationError:
        # An expression that takes too long.
        return
    finally:
        signal.alarm(0)


def _refuse(constant: str) -> Callable:
    raise AssertionError(f"{constant} is no JSON")
