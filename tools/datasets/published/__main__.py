"""``python -m tools.datasets.published NAME --root DIR --output FILE``: a MONAI datalist.

With ``--tree DIR`` instead, or too, a folder that the bundles train on as ``dataset_dir``.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from tqdm import tqdm

from . import COLLECTIONS, PublishedSet, build_datalist
from .base import Case, DatasetError, Split, Supervision
from .datalist import patient_in_lists

SPLITS = get_args(Split)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage before it."""
        self.exit(2, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the datalist; 0 when it is written, 2 with one line when something is missing."""
    parser = _Parser(
        prog="python -m tools.datasets.published",
        description="Check a published collection; write a MONAI datalist with folds by patient.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", choices=tuple(COLLECTIONS), help="see --list")
    add("--list", action="store_true", help="show names, terms and citations, and end")
    add("--root", type=Path, metavar="DIR", help="folder of the unpacked collection")
    add("--output", type=Path, metavar="FILE", help="datalist to write (JSON)")
    add("--tree", type=Path, metavar="DIR", help="training tree of the bundles to write")
    add("--fold", type=int, default=0, help="which fold to name for a bundle's held_out (0)")
    add("--label", choices=("category", "lung", "lesion"), help="what becomes MONAI's label")
    add("--folds", type=int, default=5, help="number of folds (5)")
    add("--seed", type=int, default=0, help="draws the folds (0)")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(line for c in COLLECTIONS.values() for line in _about(c)))
        return 0
    if not (options.name and options.root and (options.output or options.tree)):
        parser.error("NAME, --root and --output or --tree are needed; --list shows the names")
    collection = COLLECTIONS[options.name]
    label = options.label or collection.supervision[0]
    try:
        _check(collection, label, options)
        cases = _read(collection, options.root)
        datalist = build_datalist(
            collection, cases, options.root, label=label, folds=options.folds, seed=options.seed
        )
        held_out: list[str] = []
        if options.tree:
            kept = [case for case in cases if getattr(case, label) is not None]
            held_out = _write_tree(collection, kept, datalist, options)
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(datalist, indent=1) + "\n", "utf-8")
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(_summary(collection, cases)))
    for section in SPLITS:
        if section in datalist:
            print(f"{section}: {len(datalist[section])} with label {label}")
    if options.output:
        print(f"{options.output}: paths are relative to {options.root}")
    if options.tree:
        print(f'{options.tree}: train with --dataset_dir {options.tree} --held_out "{held_out}"')
    return 0


def _check(collection: PublishedSet, label: Supervision, options: argparse.Namespace) -> None:
    """Refuse what can be told to be wrong before anything is read or written."""
    if label not in collection.supervision:
        has = " or ".join(collection.supervision)
        raise DatasetError(f"{collection.name} gives no {label}; --label can be {has}")
    if not options.root.is_dir():
        raise DatasetError(f"{options.root} is not a folder")
    if options.output and options.output.is_dir():
        raise DatasetError(f"--output {options.output} is a folder; name a file")
    if not options.tree:
        return
    if label == "category":
        raise DatasetError("a tree holds masks; --label can be lung or lesion")
    if not 0 <= options.fold < options.folds:
        raise DatasetError(f"--fold is 0 to {options.folds - 1}, got {options.fold}")
    if options.tree.exists() and not options.tree.is_dir():
        raise DatasetError(f"--tree {options.tree} is not a folder")


def _write_tree(
    collection: PublishedSet,
    cases: Sequence[Case],
    datalist: Mapping[str, Any],
    options: argparse.Namespace,
) -> list[str]:
    """Write the cases of a datalist; return the patients to keep out for a fold."""
    # MONAI takes seconds to import.
    from .tree import write_tree

    # What the publisher keeps for validation and test has no fold.
    kept_out = {
        item["patient"]
        for split in SPLITS
        for item in datalist.get(split, ())
        if item.get("fold", options.fold) == options.fold
    }
    written = write_tree(collection, cases, options.tree / collection.name)
    bar = tqdm(written, desc="writing", unit=" cases", total=len(cases), leave=False, disable=None)
    names = {
        name.split(".")[0]
        for case, name in bar
        if patient_in_lists(collection.name, case) in kept_out
    }
    return sorted(names)


def _read(collection: PublishedSet, root: Path) -> list[Case]:
    """Check the collection's files and list its cases, with a bar."""
    cases = tqdm(
        collection.read(root),
        desc=collection.name,
        unit=" cases",
        total=collection.count or None,
        leave=False,
        # A bar on terminals only: in a log, an error is one line.
        disable=None,
    )
    return list(cases)


def _summary(collection: PublishedSet, cases: Sequence[Case]) -> Iterator[str]:
    published = f" of {collection.count} published" if collection.count else ""
    patients = len({case.patient for case in cases})
    yield f"{collection.name}: {len(cases)}{published} cases of {patients} patients"
    if collection.caution:
        yield f"note: {collection.caution}"
    if shared := _patients_in_many_splits(cases):
        yield f"note: {len(shared)} patients are in two of the publisher's splits: {shared[0]}"


def _patients_in_many_splits(cases: Sequence[Case]) -> list[str]:
    splits: dict[str, set[str]] = {}
    for case in cases:
        splits.setdefault(case.patient, set()).add(case.split)
    return sorted(patient for patient, of in splits.items() if len(of) > 1)


def _about(collection: PublishedSet) -> Iterator[str]:
    yield f"{collection.name}: {collection.title}"
    facts = {
        "gives": ", ".join(collection.supervision),
        "terms": collection.licence,
        "cite": collection.citation,
        "note": collection.caution,
    }
    for key, text in facts.items():
        if text:
            yield from textwrap.wrap(
                f"{key}: {text}", 96, initial_indent="  ", subsequent_indent="    "
            )


if __name__ == "__main__":
    sys.exit(main())
