"""PipedAI's reference worker: polls the API for runs, executes them, reports how they ended."""

__version__ = "0.1.0"
