"""Properties of `BridgeConfig`, and its `repr` without secrets."""

from __future__ import annotations

import pytest

from bridge.config import BridgeConfig


@pytest.mark.parametrize(
    ("public_url", "stream_url"),
    [
        ("https://bridge.example.com", "wss://bridge.example.com/media-stream"),
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/media-stream"),
    ],
)
def test_the_stream_url_has_the_scheme_of_the_public_url(public_url: str, stream_url: str) -> None:
    assert BridgeConfig(public_url=public_url).stream_url == stream_url


def test_a_socket_url_selects_the_socket_dialect() -> None:
    assert BridgeConfig().dialect == "call"
    assert BridgeConfig(vapi_socket_url="ws://127.0.0.1:9/agent").dialect == "socket"


def test_the_repr_contains_no_secret() -> None:
    config = BridgeConfig(
        twilio_auth_tokens=("canary-1",),
        ticket_secret="canary-2",
        vapi_api_key="canary-3",
        vapi_webhook_secret="canary-4",
        vapi_socket_url="wss://agent.example.com/canary-5",
    )
    assert "canary" not in repr(config)
