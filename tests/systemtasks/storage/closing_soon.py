"""Make a worker close connections that it has not used for three seconds."""

from django.conf import settings

from systemtasks.conf import conf

settings.SYSTEMTASKS = {
    **settings.SYSTEMTASKS,
    "CONNECTION_IDLE_SECONDS": 3.0,
    "LEASE_SECONDS": 4.0,  # the main process uses its connection every quarter of it
}
conf.cache_clear()
