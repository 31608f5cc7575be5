"""The triplanar variant: three projections of the lungs, averaged (CoRSAI, section 4.2)."""

from .triplanar import RandOrthogonalSlicesd, Triplanar, TriplanarInferer

__all__ = ["RandOrthogonalSlicesd", "Triplanar", "TriplanarInferer"]
