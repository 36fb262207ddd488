"""Makes the many made-up runs of `manage.py seed_demo --scale`. The same seed makes the same runs."""
