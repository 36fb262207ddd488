"""The version, from which everything that tells a version takes it (docs/releasing.md).

`agent/pipedai_worker` has a copy, because it is a package of its own; a test compares the two.
"""

# A release is a semantic version (https://semver.org). What comes after one is `.dev0` of the next, as Python's
# packages write it (PEP 440).
VERSION = "1.1.0.dev0"
