"""Build the container image of apps/ct_triage, a MONAI Application Package, and run it.

``python -m tools.map`` is what ``make map`` calls.
"""

from .engine import Engine, find_engine
from .image import build_image, image_tag

__all__ = ["Engine", "build_image", "find_engine", "image_tag"]
