"""The server with what `VOICEAI_SABOTAGE` names broken, before `voiceai.asgi` puts the parts together.

daphne calls.tests.demo.sabotaged_asgi:application
"""

import os

import django

from calls.tests.demo.sabotage import SABOTAGES

django.setup()
SABOTAGES[os.environ["VOICEAI_SABOTAGE"]]()

from voiceai.asgi import application  # noqa: E402

__all__ = ["application"]
