"""Errors of `flows` that the command reports in one line."""


class FlowError(Exception):
    """Base of every error raised by `flows`."""


class ServerNotStartedError(FlowError, RuntimeError):
    """The Prefect server did not come up."""


class QueryError(FlowError, ValueError):
    """A statement that DuckDB refuses."""


class ExportError(FlowError, ValueError):
    """A choice of visits that cannot be exported."""


class SettingsError(FlowError, ValueError):
    """An environment variable that cannot be used."""


class ServerUnreachableError(FlowError, ConnectionError):
    """The Prefect server that the environment names does not answer."""


class ClusterUnreachableError(FlowError, ConnectionError):
    """The Dask scheduler that the environment names does not answer."""


class VersionMismatchError(FlowError, RuntimeError):
    """The workers have other versions than the night."""


class NotWritableError(FlowError, PermissionError):
    """The trial's root cannot be written."""
