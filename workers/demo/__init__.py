"""Makes the past of the demo that `manage.py seed_demo` sows."""
