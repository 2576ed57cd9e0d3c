"""The server with the sabotage of `VOICEAI_SABOTAGE`, applied before `voiceai.asgi` is imported.

daphne calls.tests.demo.sabotaged_asgi:application
"""

import os

import django

from calls.tests.demo.sabotage import SABOTAGES

django.setup()
SABOTAGES[os.environ["VOICEAI_SABOTAGE"]]()

from voiceai.asgi import application  # noqa: E402

__all__ = ["application"]
