"""Hashes passwords with Argon2id, in so little memory that a small machine computes several at once (SPEC §19)."""

from django.contrib.auth.hashers import Argon2PasswordHasher, identify_hasher

# The password lane counts memory in places. One place is enough for a hash with today's settings.
PLACE_KIB = 64 * 1024


class PasswordHasher(Argon2PasswordHasher):
    """Argon2id with the first of OWASP's equally strong settings: 46 MiB, one pass, one lane.

    46 MiB is above the 32 MiB from which glibc always gives freed memory back to the system, and one lane takes one
    core. Hashes by Django's own class (100 MiB, two passes, eight lanes) still verify, and a login replaces them.
    """

    time_cost = 1
    memory_cost = 46 * 1024
    parallelism = 1


def places_of(encoded: str) -> int:
    """Returns how many places it takes to verify a password against this hash: two for one by Django's class."""
    try:
        hasher = identify_hasher(encoded)
    except ValueError:  # this is no hash: Django then computes a new one, to take as long
        return 1
    if not isinstance(hasher, Argon2PasswordHasher):
        return 1
    return -(-int(hasher.decode(encoded)["memory_cost"]) // PLACE_KIB)
