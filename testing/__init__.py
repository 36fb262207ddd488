"""What tests of several apps share; nothing here runs in production."""
