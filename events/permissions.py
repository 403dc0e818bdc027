"""Check that a user, and the token that the user sent, may do what the request asks for."""

from collections.abc import Callable

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView


class HasPermission(BasePermission):
    """Require the Django permission that the view or its action names in `permission_required`.

    A read-only token is limited to SAFE_METHODS, regardless of its user's permissions.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.method not in SAFE_METHODS and getattr(request.auth, "read_only", False):
            return False
        permission: str = view.permission_required  # type: ignore[attr-defined]
        # A project may have no user at all for an anonymous request, or one of a class of its own.
        has_perm: Callable[[str], bool] | None = getattr(request.user, "has_perm", None)
        return has_perm is not None and has_perm(permission)
