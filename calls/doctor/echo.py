"""`/doctor/echo`: proves that a request reached this server, and how it looked when it arrived.

The endpoint is public, so it answers with hashes only: of what was sent, and of the sender's nonce under a
key that is derived for this purpose alone.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

NONCE = re.compile(r"[0-9a-f]{32}")
MAX_BODY_BYTES = 1 << 16


def proof(nonce: str) -> str:
    """An HMAC of the nonce, which only a server with the same secret key can compute."""
    key = sha256(b"voiceai.doctor.echo:" + settings.SECRET_KEY.encode()).digest()
    return hmac.new(key, nonce.encode(), sha256).hexdigest()


@csrf_exempt
async def echo(request: HttpRequest) -> HttpResponse:
    nonce = request.GET.get("nonce", "")
    if request.method not in ("GET", "POST") or not NONCE.fullmatch(nonce):
        return HttpResponse("A nonce of 32 hex digits is required.\n", status=400, content_type="text/plain")
    body = request.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        return HttpResponse("The body is too large.\n", status=413, content_type="text/plain")
    path_and_query = f"{request.path}?{request.META.get('QUERY_STRING', '')}"
    signature = request.headers.get("X-Twilio-Signature", "")
    facts = {
        "proof": proof(nonce),
        "path": sha256(path_and_query.encode()).hexdigest(),
        "signature": sha256(signature.encode("utf-8", "replace")).hexdigest() if signature else "",
        "body": sha256(body).hexdigest(),
    }
    return JsonResponse(facts, headers={"Cache-Control": "no-store"})
