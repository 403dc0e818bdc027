"""Let django-unfold's command palette (Ctrl-K) find tasks and runs, instead of models.

Its own view always lists the models whose names have the words, and keeps what it found for five
minutes. So the address has this view, which renders the template of django-unfold.
"""

import time

from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.dataclasses import SearchResult

from systemtasks.admin_parts.finding import quick_find


def search(request: HttpRequest) -> TemplateResponse:
    """Return the tasks and runs that the user may see and that the text in `s` names."""
    start = time.perf_counter()
    results = [
        SearchResult(title=one.title, description=one.description, link=one.url, icon=one.icon)
        for one in quick_find(request.user, request.GET.get("s", ""))
    ]
    context = {
        "results": results,
        "page_obj": {"count": len(results)},
        "page_counter": 0,
        "execution_time": time.perf_counter() - start,
        "command_show_history": False,
    }
    return TemplateResponse(
        request, "unfold/helpers/command_results.html", context, headers={"HX-Trigger": "search"}
    )
