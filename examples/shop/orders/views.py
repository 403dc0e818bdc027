from typing import Any

from django.db import transaction
from rest_framework import serializers, viewsets
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_handler

from orders.models import Order
from orders.tasks import charge


class OrderSerializer(serializers.ModelSerializer[Order]):
    class Meta:
        model = Order
        fields = ("id", "article", "amount", "is_paid")
        read_only_fields = ("is_paid",)


class OrderViewSet(viewsets.ModelViewSet[Order]):
    """The customer's own orders."""

    serializer_class = OrderSerializer
    queryset = Order.objects.all()

    def get_queryset(self) -> Any:
        return Order.objects.filter(customer=self.request.user)

    def perform_create(self, serializer: Any) -> None:
        order = serializer.save(customer=self.request.user)
        transaction.on_commit(lambda: charge.delay(order.pk))


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Wrap every error, as the shop's clients expect it."""
    response = drf_handler(error, context)
    if response is not None:
        response.data = {"shop_error": response.data}
    return response
