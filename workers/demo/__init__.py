"""A large, realistic ledger for `seed_demo --scale`: made up from a seed, so that the same seed makes the same."""
