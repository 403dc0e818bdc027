"""Saved views: what a list is filtered and sorted by, under a name, for oneself or for all."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.translation import pgettext

from systemtasks.models import VIEW_NAME_LIMIT, VIEW_QUERY_LIMIT, SavedView

SHARE = "systemtasks.share_savedview"
MOST = 50
"""The views of a list that a user, or all together, can save."""


@dataclass(frozen=True, slots=True)
class View:
    """A saved view of a list, as its page shows it."""

    pk: int
    name: str
    url: str
    is_current: bool
    is_shared: bool
    may_delete: bool


def views_of(request: HttpRequest, model_name: str) -> list[View]:
    """Return the views of a list that the user has saved, and those that are shared."""
    user = request.user.get_username()
    found = SavedView.objects.filter(Q(user=user) | Q(shared=True), model=model_name)
    current = _without_page(request.GET)
    may_share = request.user.has_perm(SHARE)
    return [
        View(
            view.pk,
            view.name,
            f"?{view.query}",
            _without_page(QueryDict(view.query)) == current,
            view.shared,
            view.user == user or may_share,
        )
        for view in found.order_by("name", "pk")[: 2 * MOST]
    ]


def save_view(request: HttpRequest, model_name: str) -> HttpResponse:
    """Save what the form of a list says, in place of the user's view of the same name."""
    user = request.user.get_username()
    name = " ".join(request.POST.get("name", "").replace("\0", "").split())
    query = _encoded(request.POST.get("query", ""))
    shared = "shared" in request.POST
    if shared and not request.user.has_perm(SHARE):
        raise PermissionDenied
    own = SavedView.objects.filter(model=model_name, user=user)
    if not name or len(name) > VIEW_NAME_LIMIT:
        text = pgettext("systemtasks", "The name of a view has 1 to %d characters.")
        messages.error(request, text % VIEW_NAME_LIMIT)
    elif not query or len(query) > VIEW_QUERY_LIMIT:
        messages.error(request, pgettext("systemtasks", "There is no filter to be saved."))
    elif own.exclude(name=name).count() >= MOST:
        messages.error(request, pgettext("systemtasks", "You have %d views already.") % MOST)
    else:
        values = {"query": query, "shared": shared}
        SavedView.objects.update_or_create(model=model_name, user=user, name=name, defaults=values)
        messages.success(request, pgettext("systemtasks", "The view is saved: {}").format(name))
    return _back(request, model_name, query)


def delete_view(request: HttpRequest, model_name: str, pk: int) -> HttpResponse:
    """Delete a view: the user's own or, with the permission, one that is shared."""
    view = SavedView.objects.filter(model=model_name, pk=pk).first()
    is_own = view is not None and view.user == request.user.get_username()
    if view is None or not (is_own or view.shared):
        raise Http404
    if not is_own and not request.user.has_perm(SHARE):
        raise PermissionDenied
    view.delete()
    messages.success(request, pgettext("systemtasks", "The view is deleted: {}").format(view.name))
    return _back(request, model_name, _encoded(request.POST.get("query", "")))


def _back(request: HttpRequest, model_name: str, query: str) -> HttpResponse:
    site = request.resolver_match.namespace if request.resolver_match else "admin"
    url = reverse(f"{site}:systemtasks_{model_name}_changelist")
    return HttpResponseRedirect(f"{url}?{query}" if query else url)


def _without_page(query: QueryDict) -> dict[str, list[Any]]:
    return {name: values for name, values in query.lists() if name != PAGE_VAR and any(values)}


def _encoded(text: str) -> str:
    """Return a query string without the page, or "" for one that is much too long."""
    if len(text) > 2 * VIEW_QUERY_LIMIT:
        return ""
    query = QueryDict(mutable=True)
    for name, values in _without_page(QueryDict(text.lstrip("?").replace("\0", ""))).items():
        query.setlist(name, values)
    return query.urlencode()
