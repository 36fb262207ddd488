"""Reads lists and statistics from a standby of the database, if REPLICA_DATABASE_URL names one (docs/scaling.md).

`routing` says where the statements of a thread go, `reading` decides for each request whether the standby may answer
it, and `writers` remembers who has written lately, so that everybody sees what they have just written.
"""
