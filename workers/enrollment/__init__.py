"""Enrollment: how a host is let in, by a code that was issued or by pairing, and given its worker."""
