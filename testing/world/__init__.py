"""What there is in a test: people, keys, workers, triggers, runs, and a call of each route."""
