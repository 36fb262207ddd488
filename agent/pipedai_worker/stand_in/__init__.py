"""Plays Claude Code for people and tests without it: what `standin.py` does after it has read its options."""
