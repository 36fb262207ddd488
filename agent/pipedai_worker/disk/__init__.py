"""What the worker keeps on disk, so that no kill and no crash loses it."""
