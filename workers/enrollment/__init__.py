"""Enrollment: a host presents a code or an approved pairing, and gets its first worker and its `hos_` API key."""
