"""The paths of the API, relative to the prefix that a project includes them under."""

from django.apps import apps
from django.urls import path
from rest_framework.routers import SimpleRouter

from .views import BrowserView, SchemaView, SystemTaskViewSet, TaskRunViewSet

app_name = "systemtasks_api"

router = SimpleRouter(use_regex_path=False)
router.register("events/system_tasks", SystemTaskViewSet, basename="system-task")
router.register("events/task_runs", TaskRunViewSet, basename="task-run")

urlpatterns = [
    *router.urls,
    path("schema/", SchemaView.as_view(), name="schema"),
]
if apps.is_installed("drf_spectacular_sidecar"):  # the page consists of its files
    urlpatterns.append(path("", BrowserView.as_view(), name="api"))
