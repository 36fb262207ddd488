"""Makes a large, realistic ledger for `seed_demo --scale`. The same seed makes the same ledger."""
