"""The least that a request costs on the product's server: a Django view with one SELECT and one UPDATE."""
