"""How passwords are hashed: Argon2id in the memory that a small machine can spare for several at once (SPEC §19)."""

from django.contrib.auth.hashers import Argon2PasswordHasher, identify_hasher

# What memory is counted in: a place holds one hash of today's.
PLACE_KIB = 64 * 1024


class PasswordHasher(Argon2PasswordHasher):
    """OWASP's first choice of equally strong ones: 46 MiB, one pass, one lane.

    Its memory is above the 32 MiB from which glibc always gives freed memory back to the system, and one lane takes one
    core. Hashes that Django's own class made (100 MiB, two passes, eight lanes) verify, and are replaced at login.
    """

    time_cost = 1
    memory_cost = 46 * 1024
    parallelism = 1


def places_of(encoded: str) -> int:
    """How many places it takes to verify a password against this hash: what Django's class made takes two."""
    try:
        hasher = identify_hasher(encoded)
    except ValueError:  # no hash at all; Django makes a new one in its stead
        return 1
    if not isinstance(hasher, Argon2PasswordHasher):
        return 1
    return -(-int(hasher.decode(encoded)["memory_cost"]) // PLACE_KIB)
