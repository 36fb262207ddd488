"""Plays Claude Code for people and tests that do not have it: what `standin.py` does after it has read its options."""
