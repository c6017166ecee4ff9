"""Prefect tasks: each reads, calls one function of `cmrcore` or `storage`, writes, and returns a reference."""
