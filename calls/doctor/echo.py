"""`/doctor/echo`: proves that a request reached this very server, and how it looked on arrival.

Public, so it answers hashes alone: of what the asker sent, and of the asker's nonce under a key that is
derived for nothing else.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

NONCE = re.compile(r"[0-9a-f]{32}")
MAX_BODY = 1 << 16


def proof(nonce: str) -> str:
    key = sha256(b"voiceai.doctor.echo:" + settings.SECRET_KEY.encode()).digest()
    return hmac.new(key, nonce.encode(), sha256).hexdigest()


@csrf_exempt
async def echo(request: HttpRequest) -> HttpResponse:
    nonce = request.GET.get("nonce", "")
    if request.method not in ("GET", "POST") or not NONCE.fullmatch(nonce):
        return HttpResponse("A nonce of 32 hex digits is needed.\n", status=400, content_type="text/plain")
    body = request.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        return HttpResponse("The body is too large.\n", status=413, content_type="text/plain")
    asked = f"{request.path}?{request.META.get('QUERY_STRING', '')}"
    signature = request.headers.get("X-Twilio-Signature", "")
    facts = {
        "proof": proof(nonce),
        "asked": sha256(asked.encode()).hexdigest(),
        "signature": sha256(signature.encode("utf-8", "replace")).hexdigest() if signature else "",
        "body": sha256(body).hexdigest(),
    }
    return JsonResponse(facts, headers={"Cache-Control": "no-store"})
