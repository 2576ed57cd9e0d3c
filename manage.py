#!/usr/bin/env python3
"""Django's command line for this project. `./manage.py` uses the environment that `make` installs."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

VENV_PYTHON = Path(__file__).resolve().parent / ".venv" / "bin" / "python"


def main() -> None:
    is_outside = sys.prefix == sys.base_prefix  # of any environment
    is_venv = Path(sys.prefix) == VENV_PYTHON.parents[1]
    if VENV_PYTHON.exists() and not is_venv and (is_outside or find_spec("django") is None):
        os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])
    if find_spec("django") is None:
        sys.exit("The packages are not installed. Run `make demo` once.")
    from voiceai.command_line import run

    run(sys.argv)


if __name__ == "__main__":
    main()
