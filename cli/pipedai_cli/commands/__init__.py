"""The commands. Each module lists those about one topic in COMMANDS."""
