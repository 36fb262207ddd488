"""What runs in a test: the service's own processes, other people's programs, and calls that race or are killed."""
