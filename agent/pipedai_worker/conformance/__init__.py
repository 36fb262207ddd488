"""Checks a worker, written in any language, by letting it work against a fake API that fails on purpose."""
