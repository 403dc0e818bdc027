from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from shop.office import site

urlpatterns = [
    path("office/", site.urls),
    path("api/schema/", login_not_required(SpectacularAPIView.as_view()), name="schema"),
    path("api/", include("orders.urls")),
]
