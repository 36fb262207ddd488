"""The framework's floor: a Django view with one SELECT and one UPDATE, and nothing else, on the product's server."""
