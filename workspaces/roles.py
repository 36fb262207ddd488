"""The ordered roles (SPEC §4): each may do what those below it may."""

from django.db.models import TextChoices


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
