"""The server with injected bugs, which are installed before `voiceai.asgi` is imported.

daphne calls.tests.demo.asgi_with_bugs:application
"""

import django

from calls.tests.demo.injected_bugs import install

django.setup()
install()

from voiceai.asgi import application  # noqa: E402

__all__ = ["application"]
