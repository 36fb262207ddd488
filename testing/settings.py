"""The product's settings without what hinders tests and benchmarks, for the processes that they start."""

from pipedai.settings import *  # noqa: F403

# Hundreds of workers register from one address.
THROTTLES_ENABLED = False
# The same on every machine, whatever its processors and memory.
ARGON2_CONCURRENCY, MEMORY_BUDGET_MIB = 2, 48
