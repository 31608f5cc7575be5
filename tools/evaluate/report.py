"""What an evaluation leaves behind: tables as CSV, Markdown and LaTeX, figures, one HTML file."""

from __future__ import annotations

import base64
import io
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from tools.evaluate.masks import EvaluationError

REPORT_FILE = "report.html"
EMPTY = "-"


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes
    ----------
    name : str
        Its file name without suffix.
    caption : str
        What it shows, with the paper's table that it corresponds to.
    data : pandas.DataFrame
        The numbers in full, for CSV.
    shown : pandas.DataFrame or None
        The same for people, as in "97.1 ± 0.5"; None rounds ``data``.
    """

    name: str
    caption: str
    data: pd.DataFrame
    shown: pd.DataFrame | None = None

    @property
    def text(self) -> pd.DataFrame:
        """All cells as text, as they are to be read."""
        return (self.data if self.shown is None else self.shown).map(_cell)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        return self.text.to_markdown(index=False, disable_numparse=True) + "\n"

    def latex(self) -> str:
        """Return the table in LaTeX, for the package booktabs."""
        body = self.text.style.hide(axis="index").to_latex(hrules=True)
        return body.replace("±", r"$\pm$")

    def html(self) -> str:
        """Return the table in HTML."""
        return self.text.to_html(index=False, border=0)


@dataclass(frozen=True)
class Picture:
    """A figure, as PNG.

    Attributes
    ----------
    name : str
        Its file name without suffix.
    caption : str
        What it shows.
    png : bytes
        The file.
    """

    name: str
    caption: str
    png: bytes

    @classmethod
    def of(cls, name: str, caption: str, figure: Figure) -> Picture:
        """Render a figure."""
        stream = io.BytesIO()
        figure.savefig(stream, dpi=110)
        return cls(name, caption, stream.getvalue())

    @property
    def data_uri(self) -> str:
        """The file as a part of a web page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass
class Report:
    """One evaluation.

    Attributes
    ----------
    title : str
        Heading.
    notes : list of str
        How it was computed and what was left out, a paragraph each.
    items : sequence of Table or Picture
        In reading order; the first table is the summary.
    """

    title: str
    notes: list[str] = field(default_factory=list)
    items: Sequence[Table | Picture] = ()

    @property
    def tables(self) -> list[Table]:
        """The tables in reading order."""
        return [item for item in self.items if isinstance(item, Table)]

    def html(self) -> str:
        """Return the whole report as one file that needs no other."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("report.html.jinja").render(report=self)

    def write(self, folder: Path) -> Path:
        """Write tables, figures and, last, the HTML file; return the latter.

        Each file is written in full under another name and then renamed.

        Raises
        ------
        EvaluationError
            If the folder cannot be written.
        """
        files: dict[str, str | bytes] = {}
        for item in self.items:
            if isinstance(item, Picture):
                files[f"{item.name}.png"] = item.png
            else:
                files[f"{item.name}.csv"] = item.data.to_csv(index=False)
                files[f"{item.name}.md"] = item.markdown()
                files[f"{item.name}.tex"] = item.latex()
        files[REPORT_FILE] = self.html()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
                for name, content in files.items():
                    data = content if isinstance(content, bytes) else content.encode()
                    (Path(scratch) / name).write_bytes(data)
                for name in files:
                    os.replace(Path(scratch) / name, folder / name)
        except OSError as error:
            raise EvaluationError(
                f"{folder}: cannot write the report ({error.strerror}); choose another --output"
            ) from error
        return folder / REPORT_FILE


def prefixed(name: str, items: Iterable[Table | Picture]) -> list[Table | Picture]:
    """Return items under names and captions that tell which part of a report they are of."""
    return [
        replace(item, name=f"{name}_{item.name}", caption=f"{name.capitalize()}. {item.caption}")
        for item in items
    ]


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return EMPTY
    if isinstance(value, float):
        whole = abs(value) >= 100 or (value.is_integer() and abs(value) >= 10)
        return f"{value:.0f}" if whole and math.isfinite(value) else f"{value:.3g}"
    return str(value)
