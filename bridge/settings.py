"""What the sections of the configuration are made of: a strict base, and types that several of them use."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the configuration: unknown names are mistakes, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _address(value: str) -> str:
    ipaddress.ip_address(value)
    return value


def _name_server(value: str) -> str:
    host, _, port = value.rpartition(":") if value.startswith("[") or value.count(":") == 1 else (value, "", "")
    ipaddress.ip_address((host or value).strip("[]"))
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is no port")
    return value


NameServer = Annotated[str, AfterValidator(_name_server)]
"""`address`, `address:port` or `[IPv6 address]:port`."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Of what the configuration, the record and the metrics speak of by name: a trunk."""
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535)]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class PasswordError(Exception):
    """A password can't be had; the message says from where, and what to do."""


class PasswordSource(Section):
    """Where a password stands: never in the configuration itself, which is copied, shown and mailed."""

    password_env: str = ""
    """Name of the environment variable that holds it."""
    password_file: Path | None = None
    """A file that holds it alone, e.g. a mounted secret."""

    @model_validator(mode="after")
    def _one_source(self) -> "PasswordSource":
        if self.password_env and self.password_file is not None:
            raise ValueError("give password_env or password_file, not both")
        if self.password_env and not _VARIABLE.fullmatch(self.password_env):
            raise ValueError(f"password_env: {self.password_env[:4]!r}... is no name of a variable")
        return self

    @property
    def has_password(self) -> bool:
        return bool(self.password_env) or self.password_file is not None

    def password(self, environ: Mapping[str, str] = os.environ) -> str:
        """The password. Raises PasswordError where it is missing or empty."""
        if self.password_file is not None:
            try:
                text = self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise PasswordError(f"password_file {self.password_file} can't be read: {error}") from error
            if not text:
                raise PasswordError(f"password_file {self.password_file} is empty")
            return text
        text = environ.get(self.password_env, "") if self.password_env else ""
        if not text:
            raise PasswordError(f"the environment variable {self.password_env or '(password_env)'} is not set")
        return text
