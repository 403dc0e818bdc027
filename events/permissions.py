"""Who may do what: Django's own permissions of the model, one for each action of a view."""

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView


class HasPermission(BasePermission):
    """The user has the permission that the view names as its `permission_required`.

    And a token that is read-only only reads.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.method not in SAFE_METHODS and getattr(request.auth, "read_only", False):
            return False
        permission: str = view.permission_required  # type: ignore[attr-defined]
        return request.user.has_perm(permission)
