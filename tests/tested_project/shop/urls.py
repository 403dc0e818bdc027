from django.http import HttpRequest, HttpResponse
from django.urls import path

from .tasks import charge


def order(request: HttpRequest) -> HttpResponse:
    charge.delay(3)
    return HttpResponse("ordered")


urlpatterns = [path("order/", order)]
