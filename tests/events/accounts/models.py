"""User models that projects may have instead of Django's."""

from typing import Any, ClassVar
from uuid import uuid4

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import Group, Permission, PermissionsMixin
from django.db import models


class Manager(BaseUserManager[Any]):
    """Finds users in any case of their names."""

    def get_by_natural_key(self, username: str | None) -> Any:
        return self.get(**{f"{self.model.USERNAME_FIELD}__iexact": username})


class EmailUser(PermissionsMixin, AbstractBaseUser):
    """A user who logs in by e-mail address, without a name."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    email = models.EmailField(unique=True)
    is_staff = models.BooleanField(default=False)

    objects: ClassVar[Manager] = Manager()

    USERNAME_FIELD = "email"


class HiddenRelationsUser(AbstractBaseUser):
    """A user whose permissions and groups have no reverse relation to the user."""

    login = models.CharField(max_length=80, unique=True)
    is_staff = models.BooleanField(default=False)
    is_superuser = models.BooleanField(default=False)
    groups = models.ManyToManyField(Group, blank=True, related_name="+")
    user_permissions = models.ManyToManyField(Permission, blank=True, related_name="+")

    objects: ClassVar[Manager] = Manager()

    USERNAME_FIELD = "login"

    has_perm = PermissionsMixin.has_perm
    has_perms = PermissionsMixin.has_perms
    has_module_perms = PermissionsMixin.has_module_perms


class OwnPermissionsUser(AbstractBaseUser):
    """A user without PermissionsMixin, with its own methods for permissions."""

    badge = models.CharField(max_length=80, unique=True)
    is_staff = models.BooleanField(default=False)
    allowed = models.TextField(default="")

    objects: ClassVar[Manager] = Manager()

    USERNAME_FIELD = "badge"

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return perm in self.allowed.split()

    def has_module_perms(self, app_label: str) -> bool:
        return True


class NeedyUser(PermissionsMixin, AbstractBaseUser):
    """A user who needs more than a name."""

    email = models.EmailField(unique=True)
    department = models.CharField(max_length=80)
    groups: Any = models.ManyToManyField(Group, blank=True, related_name="staff")
    user_permissions: Any = models.ManyToManyField(Permission, blank=True, related_name="staff")

    objects: ClassVar[Manager] = Manager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar = ["department"]
