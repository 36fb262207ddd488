"""Django admin's pages of workers and enrollments."""

from workers.admin import enrollments, workers  # noqa: F401 - importing each module registers its pages
