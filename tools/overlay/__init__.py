"""Pictures of a result: CT slices with the segments of a DICOM SEG drawn over them."""

from tools.overlay.picture import draw_overlay, read_segments

__all__ = ["draw_overlay", "read_segments"]
