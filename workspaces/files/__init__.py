"""What files in Git say of an environment: plan it, apply it, export it."""
