"""Run every benchmark, one after the other: make bench"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("bench_*.py")):
    print(f"\n## {path.stem}\n", flush=True)
    subprocess.run([sys.executable, str(path)], check=True)
