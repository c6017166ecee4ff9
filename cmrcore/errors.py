"""Errors of the science layer."""


class CmrcoreError(Exception):
    """Base of every error that `cmrcore` raises on purpose."""


class InvalidInputError(CmrcoreError, ValueError):
    """The input cannot be used at all; a single pixel that will not fit is data, not an error."""
