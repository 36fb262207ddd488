"""What hosts call to manage their workers: lists, switches, event streams, the newest releases."""
