"""The browser of the tests: Debian's chromium, without a window.

The headless shell is preferred where it is installed: it needs a fraction of the full browser's CPU time.
"""

from __future__ import annotations

import os
import shutil

import pytest
from playwright.async_api import Browser, Playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


async def launch_chromium(playwright: Playwright) -> Browser:
    # Chromium's sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
