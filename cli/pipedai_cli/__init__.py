"""PipedAI's command line: it asks the HTTP API, and knows nothing that the API does not say."""

__version__ = "1.1.0.dev0"
