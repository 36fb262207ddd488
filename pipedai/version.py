"""The version of this project. Everything that tells a version takes it from here.

`agent/pipedai_worker` has a copy of it, because the worker is a package of its own; a test compares the two.
docs/releasing.md says when it changes.
"""

# A release is a semantic version (https://semver.org). What comes after one is `.dev0` of the next, as Python's
# packages write it (PEP 440).
VERSION = "1.1.0.dev0"
