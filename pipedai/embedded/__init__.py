"""A private PostgreSQL from a pip package, and the Django engine that starts it when needed."""
