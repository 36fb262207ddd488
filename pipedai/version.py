"""The version of this project. Everything that tells a version takes it from here.

`agent/pipedai_worker` has a copy of it, because the worker is a package of its own; a test compares the two.
docs/releasing.md says when it changes.
"""

# A semantic version (https://semver.org).
VERSION = "1.0.0"
