"""The API of the conventional stack."""

from django.urls import include, path
from rest_framework import serializers
from rest_framework.authentication import TokenAuthentication
from rest_framework.pagination import PageNumberPagination
from rest_framework.permissions import DjangoModelPermissions
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ReadOnlyModelViewSet

from systemtasks.models import SystemTask


class Serializer(serializers.ModelSerializer[SystemTask]):
    full_name = serializers.CharField(read_only=True)
    expiring = serializers.BooleanField(read_only=True)

    class Meta:
        model = SystemTask
        fields = (
            *("uuid", "name", "full_name", "uid", "description", "start_timestamp"),
            *("finish_timestamp", "duration", "status", "messages", "expires", "expiring"),
        )


class Pages(PageNumberPagination):
    page_size = 20


class ViewSet(ReadOnlyModelViewSet[SystemTask]):
    authentication_classes = (TokenAuthentication,)
    permission_classes = (DjangoModelPermissions,)
    pagination_class = Pages
    queryset = SystemTask.objects.all()
    serializer_class = Serializer


router = DefaultRouter()
router.register("events/system_tasks", ViewSet)
urlpatterns = [path("api/v3/", include(router.urls))]
