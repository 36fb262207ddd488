"""What the API is told of a run: heartbeats, and how the run ended."""
