"""Python of the variants cascade and threshold; the bundle itself is configs only."""

from .grid_search import GridSearch
from .lungs import FindLungMaskd
from .threshold import ThresholdBaseline

__all__ = ["FindLungMaskd", "GridSearch", "ThresholdBaseline"]
