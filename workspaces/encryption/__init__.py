"""Envelope encryption: data keys, the values encrypted (sealed) under them, and how keys are replaced and checked."""
