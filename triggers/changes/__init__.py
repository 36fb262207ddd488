"""Tells the streams of an environment which of its runs, workers and incidents have changed."""
