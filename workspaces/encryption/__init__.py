"""Encryption: data keys, what is sealed under them, and how both kinds of keys are rotated and checked."""
