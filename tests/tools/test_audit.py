import pytest

from tools.audit.licences import denied, installed_with, licence_of


@pytest.mark.parametrize(
    ("licence", "is_denied"),
    [
        ("Apache-2.0", False),
        ("BSD License", False),
        ("GPL-3.0-or-later", True),
        ("GNU Affero General Public License v3", True),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
        ("MIT OR GPL-2.0", False),
    ],
)
def test_strong_copyleft_is_denied(licence: str, is_denied: bool) -> None:
    assert denied(licence) is is_denied


def test_requirements_draw_in_what_they_need() -> None:
    names = installed_with("highdicom==0.28.2  # DICOM\n\nno-such-package==1.0\n")
    assert {"highdicom", "pydicom", "numpy"} <= set(names)
    assert "no-such-package" not in names


def test_licences_come_from_the_packages() -> None:
    assert "MIT" in licence_of("pydicom")
