"""Keep the bundles consistent: generated files, released weights."""

from .generate import TEMPLATES, outdated, write

__all__ = ["TEMPLATES", "outdated", "write"]
