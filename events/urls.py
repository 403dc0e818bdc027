"""The paths of the API, relative to the prefix that a project includes them under."""

from django.urls import path, re_path
from rest_framework.routers import SimpleRouter

from .errors import unknown_path
from .views import BrowserView, SchemaView, SystemTaskViewSet, TaskRunViewSet

app_name = "systemtasks_api"

router = SimpleRouter(use_regex_path=False)
router.register("events/system_tasks", SystemTaskViewSet, basename="system-task")
router.register("events/task_runs", TaskRunViewSet, basename="task-run")

urlpatterns = [
    *router.urls,
    path("", BrowserView.as_view(), name="api"),
    path("schema/", SchemaView.as_view(), name="schema"),
    re_path("", unknown_path),
]
