"""Fixtures of the tests that talk to a peer over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.tests.io.peers import ChangeNotifier, FakeVapi


@pytest.fixture
async def vapi() -> AsyncIterator[FakeVapi]:
    peer = FakeVapi(ChangeNotifier())
    await peer.start()
    yield peer
    await peer.stop()
