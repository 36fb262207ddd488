"""Checks workers in any language against a fake API whose faults are scripted."""
