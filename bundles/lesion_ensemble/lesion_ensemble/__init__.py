"""An ensemble of lesion segmentation networks merged by votes (CoRSAI, section 4.1).

Importing it makes the encoder "resnet21" known to segmentation-models-pytorch.
"""

from .encoders import PlainResNet18
from .ensemble import Ensemble, build_member
from .normalization import RelativeToMinimum, ZeroMeanUnitDeviation
from .voting import MeanThresholds, Vote, VotingRule
from .weights import load_member, load_weights, weights_problem

__all__ = [
    "Ensemble",
    "MeanThresholds",
    "PlainResNet18",
    "RelativeToMinimum",
    "Vote",
    "VotingRule",
    "ZeroMeanUnitDeviation",
    "build_member",
    "load_member",
    "load_weights",
    "weights_problem",
]
