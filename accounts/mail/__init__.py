"""The mails about accounts and the one-time tokens in them (SPEC §15)."""
