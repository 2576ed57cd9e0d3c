"""The list of calls: search, filters in the URL, sorting, saved views, and the export of what is listed.

It stays fast at a million calls: the paginator caps the count (`paginator.py`), filters and search answer
from an index (`call_filters.py`, `search.py`), and calls are sorted by indexed columns only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from calls.models import Call, CallHour, PhoneNumber, SavedView
from calls.staff import audit, export, search
from calls.staff.call_filters import FILTERS, SIMULATED
from calls.staff.call_query import PARAMETERS, TIME_PARAMETERS, ListQuery, TimeFilter, select_calls
from calls.staff.pages import page_context, view_call_required
from calls.staff.paginator import CappedPaginator
from calls.staff.saved_views import DEFAULT_VIEWS
from calls.stats import time_ranges
from calls.stats.flags import SLOW_TURN_MS
from calls.viewer import Viewer

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Choice:
    label: str
    url: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Menu:
    """One filter above the list: its choices, and the chosen one as a chip that can be removed."""

    name: str
    title: str
    chosen: str  # label; empty: the filter is off
    remove_url: str
    choices: list[Choice]


@dataclass(frozen=True, slots=True)
class Column:
    """A heading of the table of calls. `sort` is the value of `sort` that sorts by it, `url` its link."""

    title: str
    css_class: str = ""
    sort: str = ""
    url: str = ""
    aria_sort: str = ""


COLUMNS = (
    Column("Time", sort="time"),
    Column("Caller or callee"),
    Column("Number"),
    Column("Duration", "figure", sort="length"),
    Column("Status"),
    Column("Summary"),
    Column("p50", "figure"),
    Column("Slowest", "figure", sort="slowest"),
    Column("Cost", "figure"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of calls."""

    call: Call
    number_label: str
    hit: search.Hit | None = None

    @property
    def has_slow_turn(self) -> bool:
        """As the flag `slow-turn`; the target, which a call's page uses, is lower."""
        return (self.call.worst_latency_ms or 0) > SLOW_TURN_MS


def build_rows(calls: list[Call], hits: Mapping[int, search.Hit] | None = None) -> list[Row]:
    """One query, for the labels of our numbers."""
    numbers = {call.our_number for call in calls}
    labels = dict(PhoneNumber.objects.filter(number__in=numbers).values_list("number", "label"))
    return [Row(call, labels.get(call.our_number, ""), (hits or {}).get(call.pk)) for call in calls]


@view_call_required
@require_safe
def call_list(request: HttpRequest) -> HttpResponse:
    viewer = Viewer.for_user(request.user)
    query = ListQuery.parse(request.GET.dict())
    now = timezone.now()
    when = TimeFilter.parse(query.values, now)
    calls, search_is_capped = select_calls(query, viewer, now)
    paginator = CappedPaginator(calls, PAGE_SIZE)
    page = paginator.get_page(request.GET.get("page"))
    listed = list(page.object_list)
    hits = search.find_hits([call.pk for call in listed], query.search_text)
    menus = _menus(query, viewer)
    is_filtered = bool(when.label or any(menu.chosen for menu in menus))
    is_narrowed = is_filtered or bool(query.search_text)
    context = {
        **page_context(request, "Calls"),
        "query": query,
        "hidden": {name: value for name, value in query.values.items() if name != "q"},
        "hidden_without_time": {
            name: value for name, value in query.values.items() if name not in TIME_PARAMETERS
        },
        "when": when,
        "time_menu": _time_menu(query, when),
        "menus": menus,
        "is_filtered": is_filtered,
        "is_narrowed": is_narrowed,
        "clear_url": query.url_without(*(name for name in PARAMETERS if name not in ("q", "sort"))),
        "unsearched_url": query.url_without("q"),
        "columns": _sortable_columns(query),
        "rows": build_rows(listed, hits),
        "page": page,
        "paginator": paginator,
        "search_is_capped": search_is_capped,
        "page_url": query.url() + ("&" if query.values else "?"),
        "excludes_empty": not query.sort.endswith("time"),
        "simulated_url": _find_simulated_url(query),
        "has_calls": bool(listed) or not is_narrowed or Call.objects.exists(),
        "saved_views": SavedView.objects.filter(user=request.user.pk),
        "default_views": DEFAULT_VIEWS,
        "query_string": query.encode(),
        "list_suffix": query.encode_for_call(),
        "all_columns_url": _admin_url(query, when),
    }
    return render(request, "calls/call_list.html", context)


def _find_simulated_url(query: ListQuery) -> str:
    """The same list of simulated calls, if it hides them; empty if it does not, or there are none."""
    if query.values.get(SIMULATED.name) or not Call.objects.real().exists():
        return ""
    # Not from the calls: no index tells fast that none of a million is simulated.
    has_simulated = CallHour.objects.filter(simulated=True).exists()
    return query.url(**{SIMULATED.name: "yes"}) if has_simulated else ""


def _time_menu(query: ListQuery, when: TimeFilter) -> Menu:
    others = dict.fromkeys(TIME_PARAMETERS, "")
    chosen = query.values.get("range", "")
    choices = [
        Choice(label, query.url(**others | {"range": name}), name == chosen)
        for name, label in time_ranges.RANGE_LABELS.items()
    ]
    return Menu("time", "Time", when.label, query.url(**others), choices)


def _menus(query: ListQuery, viewer: Viewer) -> list[Menu]:
    menus = []
    for call_filter in FILTERS:
        name, value = call_filter.name, query.values.get(call_filter.name, "")
        choices = [
            Choice(label, query.url(**{name: choice}), choice == value)
            for choice, label in call_filter.choices()
        ]
        if choices or value:
            chosen = call_filter.label(value, viewer) if value else ""
            menus.append(Menu(name, call_filter.title, chosen, query.url_without(name), choices))
    return menus


def _sortable_columns(query: ListQuery) -> list[Column]:
    """The columns, with links that sort by them. Another click on a column reverses it."""
    sort, text = query.sort.removeprefix("-"), "Transcript" if query.search_text else "Summary"
    columns = []
    for column in COLUMNS:
        if column.sort == sort:
            is_descending = query.sort.startswith("-")
            url = query.url(sort=sort if is_descending else f"-{sort}")
            column = replace(column, url=url, aria_sort="descending" if is_descending else "ascending")
        elif column.sort:
            column = replace(column, url=query.url(sort=f"-{column.sort}"))
        columns.append(replace(column, title=text) if column.title == "Summary" else column)
    return columns


def _admin_url(query: ListQuery, when: TimeFilter) -> str:
    """The admin's list with the same search and filters, for its bulk actions and columns."""
    names = ("q", *(call_filter.name for call_filter in FILTERS))
    values = {name: value for name, value in query.values.items() if name in names}
    if when.since:
        values["started_at__gte"] = when.since.isoformat()
    if when.until:
        values["started_at__lt"] = when.until.isoformat()
    return f"{reverse('admin:calls_call_changelist')}?{urlencode(values)}"


@view_call_required
@require_safe
def export_calls(request: HttpRequest) -> HttpResponseBase:
    """The list with its current search and filters, newest first, as a file."""
    viewer = Viewer.for_user(request.user)
    if not viewer.can_export:
        raise PermissionDenied("Exporting calls requires the permission “Can export calls”.")
    file_format = request.GET.get("format", "csv")
    if file_format not in export.FORMATS:
        raise Http404(f"There is no export format {file_format[:20]}.")
    query = ListQuery.parse(request.GET.dict())
    audit.record(request.user, "export", detail=f"{file_format} {query.encode()}")
    calls = select_calls(query, viewer, timezone.now()).calls
    return export.download(calls, file_format, viewer, name=f"calls-{timezone.localdate():%Y-%m-%d}")
