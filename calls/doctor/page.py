"""`/set-up`: the doctor's answers as a page. Only its button asks: a page that is left open asks nobody."""

from __future__ import annotations

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from calls import doctor
from calls.doctor.settings import CHECKS as CONFIGURED
from calls.doctor.symptoms import SYMPTOMS
from calls.staff.pages import page_context, staff_page


@require_http_methods(["GET", "POST"])
@staff_page
def set_up(request: HttpRequest) -> HttpResponse:
    everything = request.method == "POST"
    names = () if everything else [check.name for check in CONFIGURED]
    answers = async_to_sync(doctor.examine)(names)
    context = page_context(request, "Set-up") | {
        "answers": answers,
        "everything": everything,
        "reds": sum(each.finding.level == "red" for each in answers),
        "symptoms": SYMPTOMS,
    }
    return render(request, "calls/set_up.html", context)
