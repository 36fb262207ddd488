"""Sends requests to customers' URLs and mails. No other part of the service sends to other people's servers.

An app writes a row into its outbox in the transaction of the cause; `kinds` shows how. `due` picks and claims messages,
`pool` has the threads, `attempts` sends and records, and `posts` and `mails` are what is sent.
"""
