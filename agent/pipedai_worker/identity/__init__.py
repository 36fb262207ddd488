"""Who the worker is: its registration, the account that pays for claude, and how that is chosen."""
