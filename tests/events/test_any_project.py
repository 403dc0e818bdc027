"""The API in a project that has its own views, and settings for them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.test import Client, override_settings
from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from rest_framework.generics import GenericAPIView
from rest_framework.response import Response
from rest_framework.schemas.generators import EndpointEnumerator
from rest_framework.views import APIView

from events.policies import ContractView
from events.views import Endpoint


class OrdersView(APIView):
    """A view of the project."""

    schema = AutoSchema()

    def get(self, request: Any) -> Response:
        return Response([])


PROJECT: Any = ModuleType("urls of the project")
PROJECT.urlpatterns = [
    path("shop/tasks/", include("events.urls", namespace="tasks")),
    path("shop/orders/", OrdersView.as_view(), name="schema"),
]


@pytest.fixture
def _project() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=PROJECT):
        yield


@pytest.mark.slow
@pytest.mark.skipif(hasattr(settings, "REST_FRAMEWORK"), reason="These are those settings already")
def test_contract_holds_whatever_the_project_sets_for_its_own_views() -> None:
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    command += ["--ds=tests.events.foreign_settings", str(folder), f"--ignore={__file__}"]
    # These compare with the results of DRF and drf-spectacular under the project's settings.
    command += [f"--ignore={folder / 'test_renderers.py'}", "-k", "not what_make_openapi_makes"]
    done = subprocess.run(
        command,
        cwd=settings.BASE_DIR,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize(("view", "base"), [(ContractView, APIView), (Endpoint, GenericAPIView)])
def test_views_take_no_policy_from_the_project(view: type, base: type) -> None:
    own = set().union(*(vars(each) for each in view.__mro__ if each not in APIView.__mro__))
    if base is GenericAPIView:  # what each list says for itself
        own |= {"pagination_class", "serializer_class"}
    policies = {name for name in vars(base) if name.endswith(("_class", "_classes", "_backends"))}
    assert policies
    assert policies | {"settings", "schema"} <= own


def test_document_of_the_projects_views_has_none_of_ours() -> None:
    generator: Any = SchemaGenerator(patterns=PROJECT.urlpatterns)
    assert generator.get_schema(public=True)["paths"].keys() == {"/shop/orders/"}
    found: Any = EndpointEnumerator(patterns=PROJECT.urlpatterns)
    assert [path for path, *_ in found.get_api_endpoints()] == ["/shop/orders/"]


@pytest.mark.usefixtures("_project")
def test_our_document_names_where_it_is_mounted_and_none_of_the_projects_views() -> None:
    for format_ in ("yaml", "json"):
        answer = Client().get("/shop/tasks/schema/", {"format": format_})
        document = yaml.safe_load(answer.content)
        assert document["servers"] == [{"url": "/shop/tasks"}]
        assert document["info"]["title"] == "System Tasks"
        assert "/events/system_tasks/" in document["paths"]
        assert "/orders/" not in answer.content.decode()
    assert 'data-document="/shop/tasks/schema/"' in Client().get("/shop/tasks/").content.decode()


@pytest.mark.usefixtures("_project")
def test_paths_that_are_not_ours_are_the_projects() -> None:
    assert Client().get("/shop/orders/").json() == []
    unknown = Client().get("/shop/tasks/unknown/")
    assert unknown.status_code == 404
    assert unknown["Content-Type"].startswith("text/html")
