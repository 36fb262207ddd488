"""The version, from which everything that tells a version takes it (docs/releasing.md).

`agent/pipedai_worker` has a copy, because it is a package of its own; a test compares the two.
"""

# A semantic version (https://semver.org).
VERSION = "1.0.0"
