"""The root URLs: the API, the admin, and a redirect to it."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from config.palette import search
from events.errors import unknown_path

urlpatterns = [
    # authentik's published reference has a second slash, so it is accepted. reverse() writes one.
    re_path("^api/v3/+", include("events.urls")),
    re_path("^api/v3/", unknown_path),
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/search/", admin.site.admin_view(search)),
    path("admin/", admin.site.urls),
]

handler400 = "events.errors.bad_request"
handler403 = "config.forbidden.page"
handler500 = "events.errors.server_error"
