"""A conformance kit for workers in any language: a fake API with scripted faults, and checks."""
