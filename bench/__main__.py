"""`make bench`: run the benchmarks of audio, journal, calls and frozen.

`bench.pages` is not among them: it needs a database with generated calls.
"""

from __future__ import annotations

import subprocess
import sys

if __name__ == "__main__":
    results = [
        subprocess.run([sys.executable, "-m", f"bench.{name}"])
        for name in ("audio", "journal", "calls", "frozen")
    ]
    sys.exit(max(result.returncode for result in results))
