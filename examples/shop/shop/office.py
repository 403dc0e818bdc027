"""The admin site of the shop."""

from django.contrib.admin import AdminSite, ModelAdmin
from orders.models import Order


class Office(AdminSite):
    site_header = "Shop"


site = Office(name="office")
site.register(Order, ModelAdmin)
