"""The paths of the API, below wherever a project puts them."""

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from events.errors import unknown_path
from events.views import SystemTaskViewSet

router = SimpleRouter(use_regex_path=False)
router.register("events/system_tasks", SystemTaskViewSet, basename="system-task")

urlpatterns = [
    path("", SpectacularSwaggerView.as_view(), name="api"),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("", include(router.urls)),
    re_path("", unknown_path),
]
