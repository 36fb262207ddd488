"""What can execute a run: `claude` (the default), or any other program."""
