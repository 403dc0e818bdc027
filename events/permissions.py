"""Who may do what: Django's own permissions of the model, one for each action of a view."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView


class HasPermission(BasePermission):
    """The user has the permission that the view names as its `permission_required`."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        permission: str = view.permission_required  # type: ignore[attr-defined]
        return request.user.has_perm(permission)
