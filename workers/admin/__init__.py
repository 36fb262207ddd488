"""Django admin's pages of workers, pools and enrollments."""

from workers.admin import (  # noqa: F401 - importing each module registers its pages
    enrollments,
    pools,
    workers,
)
