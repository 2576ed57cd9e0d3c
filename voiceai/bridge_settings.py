"""The configuration of the bridge, from Django's settings. No other module reads both."""

from __future__ import annotations

from django.conf import settings

from bridge.config import AudioFormat, BridgeConfig


def bridge_config() -> BridgeConfig:
    """The configuration by the current settings. Called once, when the server starts."""
    return BridgeConfig(
        public_url=settings.PUBLIC_URL,
        public_url_spellings=settings.PUBLIC_URL_SPELLINGS,
        twilio_account_sid=settings.TWILIO_ACCOUNT_SID,
        twilio_auth_tokens=tuple(settings.TWILIO_AUTH_TOKENS),
        ticket_secret=settings.SECRET_KEY,
        allow_unsigned=settings.DEBUG and not settings.TWILIO_AUTH_TOKENS,
        vapi_api_key=settings.VAPI_API_KEY,
        vapi_assistant_id=settings.VAPI_ASSISTANT_ID,
        vapi_base_url=settings.VAPI_BASE_URL,
        vapi_socket_url=settings.VAPI_SOCKET_URL,
        vapi_webhook_secret=settings.VAPI_WEBHOOK_SECRET,
        vapi_audio_format=AudioFormat(settings.VAPI_AUDIO_FORMAT),
        vapi_allowed_hosts=tuple(settings.VAPI_ALLOWED_HOSTS),
        vapi_ping_seconds=settings.VAPI_PING_SECONDS,
        vapi_endpointing_ms=settings.VAPI_ENDPOINTING_MS,
        release=settings.RELEASE,
        max_concurrent_calls=settings.MAX_CONCURRENT_CALLS,
        max_call_seconds=settings.MAX_CALL_SECONDS,
        hold_buffer_ms=settings.HOLD_BUFFER_MS,
        record_calls=settings.RECORD_CALLS,
        ai_disclosure=settings.AI_DISCLOSURE,
        fallback_number=settings.FALLBACK_NUMBER,
        say_language=settings.SAY_LANGUAGE,
        say_voice=settings.SAY_VOICE,
    )
