"""Envelope encryption: data keys, the values sealed under them, and the rotation and check of data and master keys."""
