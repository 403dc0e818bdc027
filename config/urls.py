"""Where everything is."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

urlpatterns = [
    # authentik's published reference prints its paths with a second slash; reverse() gives one.
    re_path("^api/v3/+", include("events.urls")),
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]

handler400 = "events.errors.bad_request"
handler500 = "events.errors.server_error"
