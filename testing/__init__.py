"""Code that the tests of several apps share. Nothing here runs in production.

`world` makes the rows of a test, `processes` starts programs and calls, and `probes` examines what a test left behind.
"""
