"""What the record can fail with; each message says what was wrong and what to do."""


class StoreError(Exception):
    """The record can't be opened, read or written."""


class StoreLockedError(StoreError):
    """Another process holds the database."""


class StoreDamagedError(StoreError):
    """The file is not a database, or is broken."""


class StoreSchemaError(StoreError):
    """The database was written by a newer Offhook, or its migration failed."""


class CursorError(StoreError):
    """A paging cursor that `list_calls` did not give out."""
