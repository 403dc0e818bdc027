"""Where everything is."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v3/", include("events.urls")),
    # authentik's published reference prints its paths with this second slash.
    path("api/v3//", include("events.urls")),
]

handler400 = "events.errors.bad_request"
handler403 = "events.errors.permission_denied"
handler404 = "events.errors.not_found"
handler500 = "events.errors.server_error"
