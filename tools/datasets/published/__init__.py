"""Readers of the public collections that the papers use, in their publishers' own layout."""

from .base import Case, PublishedSet
from .cncb import CNCB, CNCB_LESIONS
from .covid19_ct_seg20 import COVID19_CT_SEG20
from .covidx_ct import COVIDX_CT
from .datalist import assign_folds, build_datalist
from .ictcf import ICTCF
from .kaggle_lungs import KAGGLE_LUNGS, KAGGLE_LUNGS_3D
from .luna16 import LUNA16
from .medseg9 import MEDSEG9
from .medseg100 import MEDSEG100
from .mosmed import MOSMED
from .nsclc import NSCLC

COLLECTIONS = {
    collection.name: collection
    for collection in (
        MOSMED,
        COVID19_CT_SEG20,
        MEDSEG9,
        MEDSEG100,
        NSCLC,
        LUNA16,
        CNCB,
        CNCB_LESIONS,
        COVIDX_CT,
        ICTCF,
        KAGGLE_LUNGS,
        KAGGLE_LUNGS_3D,
    )
}
"""All collections, by name."""

__all__ = ["COLLECTIONS", "Case", "PublishedSet", "assign_folds", "build_datalist"]
