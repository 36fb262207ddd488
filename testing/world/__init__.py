"""Makes the people, keys, workers, triggers and runs of a test, and a valid call of each route."""
