"""Bounds on what a study may ask for, so that no file can exhaust the machine.

Each is far above what scanners make and far below what would hurt.
"""

# The largest matrix of a CT reconstruction is 2048.
MAX_MATRIX = 4096
MAX_SLICES = 8192
# 2000 slices of 1024 x 1024, as int16 four gigabytes.
MAX_VOXELS = 2**31
# A deflated file is inflated in memory by every reader.
MAX_INFLATED_BYTES = 2**31
