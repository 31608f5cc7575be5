import sys
from pathlib import Path

# The small study whose masks are known exactly.
sys.path.insert(0, str(Path(__file__).parents[2] / "apps"))
