"""What the scripts of this directory are made of; no part of the service."""
