"""Where tests look for real data."""

import os
from pathlib import Path

BESIDE_THE_PROJECT = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDER = Path(os.environ.get("PPL_BUFFER_DATA") or BESIDE_THE_PROJECT)
