"""The server with the sabotages, which are installed before `voiceai.asgi` is imported.

daphne calls.tests.demo.sabotaged_asgi:application
"""

import django

from calls.tests.demo.sabotage import install

django.setup()
install()

from voiceai.asgi import application  # noqa: E402

__all__ = ["application"]
