"""Enrollment: a host exchanges a code or an approved pairing for its first worker and its `hos_` API key."""
