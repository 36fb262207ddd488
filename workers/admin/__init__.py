"""How staff see workers, and how hosts enrolled."""

from workers.admin import enrollments, workers  # noqa: F401 - each registers itself
