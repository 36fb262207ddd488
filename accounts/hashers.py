"""Hashes passwords with Argon2id, in so little memory that a small machine computes several at once (SPEC §19)."""

from django.contrib.auth.hashers import Argon2PasswordHasher, identify_hasher

# The memory of a permit for hashing passwords, in KiB, into which one hash with today's settings fits. The number of
# permits is limited, and login requests wait in a queue until one is free.
PERMIT_KIB = 64 * 1024


class PasswordHasher(Argon2PasswordHasher):
    """Hashes with Argon2id under the first of the settings that OWASP calls equally strong: 46 MiB, one pass, one
    thread.

    The C library (glibc) always returns a freed block of more than 32 MiB to the operating system, so the 46 MiB are
    free again after each hash. One thread uses one CPU core. Hashes that Django's own class made (100 MiB, two passes,
    eight threads) can still be verified, and a login replaces them.
    """

    time_cost = 1
    memory_cost = 46 * 1024
    parallelism = 1


def permits_of(encoded: str) -> int:
    """Returns how many permits it takes to verify a password against this hash: one for a hash with today's settings,
    two for a hash that Django's own class made.
    """
    try:
        hasher = identify_hasher(encoded)
    except ValueError:
        # The text is no hash, as for an account without a password. Django then computes one new hash, so that the
        # answer takes as long as for other accounts.
        return 1
    if not isinstance(hasher, Argon2PasswordHasher):
        return 1
    return -(-int(hasher.decode(encoded)["memory_cost"]) // PERMIT_KIB)
