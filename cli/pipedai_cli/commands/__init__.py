"""The commands. Each module has those of one matter in COMMANDS."""
