"""The admin site of the service, which opens with the home page."""

from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.sites import UnfoldAdminSite

from systemtasks.admin_parts.menu import TASKS
from systemtasks.models import SystemTask


class Site(UnfoldAdminSite):
    """The site, with the look of django-unfold."""

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Return the home page, or the list of models to whoever may not view tasks."""
        if not request.user.has_perm(TASKS):
            return super().index(request, extra_context)
        home: Any = self.get_model_admin(SystemTask)
        page: TemplateResponse = home.home_view(request)
        return page
