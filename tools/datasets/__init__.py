"""Bring the public collections into the one tree that the bundles train on."""

from .tree import NAMES, DatasetError, build_tree

__all__ = ["NAMES", "DatasetError", "build_tree"]
