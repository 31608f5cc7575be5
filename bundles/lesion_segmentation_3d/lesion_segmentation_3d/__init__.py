"""What the configs of this bundle need beyond MONAI."""

from .inflation import start_from_slices

__all__ = ["start_from_slices"]
