"""Declarations of the signal models, one subject a file."""
