"""The endpoints that a worker program calls to register, to poll for runs, and to report on the runs that it
executes.
"""
