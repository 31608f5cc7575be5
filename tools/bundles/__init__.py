"""Keep the bundles consistent: generated files, released weights."""

from .generate import BUNDLE_NAMES, outdated, write

__all__ = ["BUNDLE_NAMES", "outdated", "write"]
