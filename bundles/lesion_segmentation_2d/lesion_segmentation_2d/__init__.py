"""Python of the bundle: what follows the network, and the variants cascade and threshold."""

from .averaging import SecondLook
from .grid_search import GridSearch
from .lungs import FindLungMaskd
from .threshold import ThresholdBaseline

__all__ = ["FindLungMaskd", "GridSearch", "SecondLook", "ThresholdBaseline"]
