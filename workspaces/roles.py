"""The roles and their order: each role may do whatever the roles below it may."""

from django.db.models import TextChoices

from pipedai.api.errors import Forbidden


class Role(TextChoices):
    """A role in an environment, from the lowest to the highest: `viewer`, `operator`, `admin`, `owner`."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def includes(self, other: "Role") -> bool:
        return self.rank >= other.rank


# The roles that a `pwk_` key may have. A key can't be an owner, only a person can.
KEY_ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
# The role of every `hos_` key. Such a key may change only the workers of its own host (workers/host_views.py).
HOST_ROLE = Role.ADMIN


def check_includes(role: Role, needs: Role) -> Role:
    if not role.includes(needs):
        raise Forbidden(f"This needs the role {needs.value} or above.")
    return role
