"""The answer to a page that somebody may not see, in the admin's look: Django's handler403."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.views.defaults import permission_denied

from systemtasks.admin_parts.base import forbidden


def page(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page of the admin, or Django's own to somebody who is not logged in there."""
    if not admin.site.has_permission(request):
        return permission_denied(request, exception)
    return forbidden(request, admin.site.each_context(request)).render()
