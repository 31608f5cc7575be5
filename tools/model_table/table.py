"""The table as Markdown, between two marks of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

BEGIN, END = "<!-- make model-table: begin -->", "<!-- make model-table: end -->"
COLUMNS = (
    *("bundle", "parameters", "file", "input", "unseen real patients", "unseen phantoms"),
    *("seconds a study", "peak memory"),
)
NO_WEIGHTS = "no weights yet"
NOT_MEASURED = "not measured"


def read_rows(readme: Path) -> dict[str, list[str]]:
    """Return the cells of each row of the table in a file, by the bundle's name.

    Raises
    ------
    ValueError
        If the file has not both marks, in their order.
    """
    _, between, _ = _parts(readme)
    rows = {}
    for line in between.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0].startswith("["):
            rows[cells[0][1:].partition("]")[0]] = cells
    return rows


def write_rows(readme: Path, rows: Mapping[str, Sequence[str]], note: str) -> None:
    """Put a table and a line about it between the marks of a file.

    Parameters
    ----------
    readme
        The file.
    rows
        The cells of each row, by the bundle's name.
    note
        How it was measured.

    Raises
    ------
    ValueError
        If the file has not both marks, in their order.
    """
    before, _, after = _parts(readme)
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows.values()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    readme.write_text(f"{before}{BEGIN}\n{table}\n\n{note}\n{END}{after}", encoding="utf-8")


def name_cell(name: str) -> str:
    """Link to a bundle's card."""
    return f"[{name}](bundles/{name}/docs/README.md)"


def empty_row(name: str, reason: str) -> list[str]:
    """Return the cells of a bundle without figures, which say why."""
    return [name_cell(name), reason, *[""] * (len(COLUMNS) - 2)]


def _parts(readme: Path) -> tuple[str, str, str]:
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    between, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} lacks the lines {BEGIN} and {END} that the table goes between")
    return before, between, after
