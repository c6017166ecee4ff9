"""Prefect tasks: each reads, calls a function of `cmrcore` or `storage`, writes, and returns a reference."""
