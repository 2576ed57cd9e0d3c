"""`/set-up`: the doctor's results as a page.

Opening the page reads the settings only. The network checks run when the button is pressed, so a page that
is left open sends no requests.
"""

from __future__ import annotations

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from calls import doctor
from calls.doctor.settings import CHECKS as SETTINGS_CHECKS
from calls.doctor.symptoms import SYMPTOMS
from calls.staff.pages import page_context, view_call_required


@require_http_methods(["GET", "POST"])
@view_call_required
def set_up(request: HttpRequest) -> HttpResponse:
    runs_all = request.method == "POST"
    names = () if runs_all else [check.name for check in SETTINGS_CHECKS]
    results = async_to_sync(doctor.run_checks)(names)
    context = page_context(request, "Setup") | {
        "results": results,
        "runs_all": runs_all,
        "red_count": sum(result.finding.level == "red" for result in results),
        "symptoms": SYMPTOMS,
    }
    return render(request, "calls/set_up.html", context)
