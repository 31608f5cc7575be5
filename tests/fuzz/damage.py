"""What the targets damage: bytes anywhere, and single attributes of whole data sets."""

import io
from typing import Any

from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

HANG_SECONDS = 60
TEXTS = [
    "", " ", "0", "-1", "1e308", "1e999", "nan", "inf", "-inf", "65535", "4294967296", "x" * 300,
    "1\\2", "1\\2\\3", "0\\0\\0\\0\\0\\0", "\\\\\\", "1.2.3", "LOCALIZER", "MONOCHROME1", "HU",
    "ISO 2022 IR 87", "\u5c71", "1.2.840.10008.5.1.4.1.1.2.1",
]  # fmt: skip

spots = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["flip", "cut", "insert", "repeat", "length"]),
    st.binary(min_size=1, max_size=8),
)
# Where in the tree of a data set, what is done there, and with which value.
edits = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["remove", "text", "number", "move", "repeat", "empty"]),
    st.sampled_from(TEXTS) | st.text(max_size=20),
    st.integers(-(2**31), 2**32) | st.floats(),
)


def with_spots(content: bytes, changes: list[tuple]) -> bytes:
    """Damage bytes anywhere: values, lengths, tags, the compressed stream."""
    for place, kind, noise in changes:
        at = int(place * len(content))
        if kind == "flip":
            content = content[:at] + noise + content[at + len(noise) :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "insert":
            content = content[:at] + noise + content[at:]
        elif kind == "repeat":
            content = content[:at] + content[at : at + 200] * 3 + content[at + 200 :]
        else:
            content = content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :]
    return content


def with_edits(content: bytes, changes: list[tuple]) -> bytes:
    """Change elements anywhere in the tree of a data set; what cannot be written stays as it was.

    "move" gives an element that is no sequence the value of another of its kind, "repeat" doubles
    the items of a sequence.
    """
    dataset = dcmread(io.BytesIO(content))
    for place, kind, text, number in changes:
        holders = [(holder, element) for holder in _datasets(dataset) for element in holder]
        holder, element = holders[int(place * len(holders))]
        before = holder[element.tag]
        with disable_value_validation():
            try:
                if kind == "remove":
                    del holder[element.tag]
                else:
                    value = _changed(element, kind, text, number, holders)
                    holder[element.tag] = DataElement(element.tag, element.VR, value)
                    _bytes(dataset)
            except Exception:  # writers refuse much of what readers must survive
                holder[element.tag] = before
    return _bytes(dataset)


def _changed(
    element: DataElement, kind: str, text: str, number: float, holders: list[tuple]
) -> Any:
    # A sequence in its own item would never end, for the writer here first of all.
    if kind == "move" and element.VR != "SQ":
        same = [other for _, other in holders if other.VR == element.VR and other is not element]
        return same[len(text) % len(same)].value if same else element.value
    if kind == "repeat" and element.VR == "SQ":
        return [*element.value, *element.value]
    if kind == "empty":
        return [] if element.VR == "SQ" else None
    return text if kind == "text" else number


def _datasets(dataset: Dataset) -> list[Dataset]:
    found = [dataset]
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                found += _datasets(item)
    return found


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    with disable_value_validation():
        dcmwrite(buffer, dataset)
    return buffer.getvalue()
