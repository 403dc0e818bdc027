"""Check that a user, and the token that the user sent, may do what the request asks for."""

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView


class HasPermission(BasePermission):
    """Require the Django permission that the view or its action names in `permission_required`.

    A read-only token is limited to SAFE_METHODS, whatever permissions its user has.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.method not in SAFE_METHODS and getattr(request.auth, "read_only", False):
            return False
        permission: str = view.permission_required  # type: ignore[attr-defined]
        return request.user.has_perm(permission)
