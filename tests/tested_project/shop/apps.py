import os
import time

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"
    label = "shop"

    def ready(self) -> None:
        if seconds := os.environ.get("SHOP_SENDS_AT_START"):
            from .tasks import charge

            charge.delay(1)
            time.sleep(float(seconds))  # much more than the writer waits before it writes
