"""The ordered roles (SPEC §4): each may do what those below it may."""

from django.db.models import TextChoices

from pipedai.api.errors import Forbidden


class Role(TextChoices):
    """`viewer` < `operator` < `admin` < `owner`."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        """Its place in the order, from 0."""
        return _ORDER.index(self)

    def includes(self, other: "Role") -> bool:
        """Whether it may do all that `other` may."""
        return self.rank >= other.rank


_ORDER = (Role.VIEWER, Role.OPERATOR, Role.ADMIN, Role.OWNER)

# What a pwk_ key may hold: an owner's rights belong to people (SPEC §4).
KEY_ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
# What a hos_ key acts as; which workers it may change is narrower (workers/host_views.py).
HOST_ROLE = Role.ADMIN


def check_includes(role: Role, needs: Role) -> Role:
    """The role, if it may do what `needs` may. Raises Forbidden."""
    if not role.includes(needs):
        raise Forbidden(f"This needs the role {needs.value} or above.")
    return role
