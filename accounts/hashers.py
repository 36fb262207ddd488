"""Hashes passwords with Argon2id, in so little memory that a small machine computes several at once (SPEC §19)."""

from django.contrib.auth.hashers import Argon2PasswordHasher, identify_hasher

# The memory of one place, in KiB. The password lane, in which requests wait for their turn to hash, has a limited
# number of places. A hash with today's settings fits into one.
PLACE_KIB = 64 * 1024


class PasswordHasher(Argon2PasswordHasher):
    """Hashes with Argon2id under the first of the settings that OWASP calls equally strong: 46 MiB, one pass, one
    thread.

    glibc always gives freed memory back to the system if it was taken in pieces above 32 MiB, as 46 MiB are. One thread
    uses one CPU core. Hashes by Django's own class (100 MiB, two passes, eight threads) can still be verified, and a
    login replaces them.
    """

    time_cost = 1
    memory_cost = 46 * 1024
    parallelism = 1


def places_of(encoded: str) -> int:
    """Returns how many places verifying a password against this hash takes: one for a hash with today's settings, two
    for one by Django's own class. A place is a share of the memory that all hashes together may use.
    """
    try:
        hasher = identify_hasher(encoded)
    except ValueError:
        # The text is no hash, as for an account without a password. Django then computes one new hash, so that the
        # answer takes as long as for other accounts.
        return 1
    if not isinstance(hasher, Argon2PasswordHasher):
        return 1
    return -(-int(hasher.decode(encoded)["memory_cost"]) // PLACE_KIB)
