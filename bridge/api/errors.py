"""How the API says no: always `{"error": {"code": ..., "message": ...}}`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from bridge.store.errors import CursorError, StoreError

_CODES = {400: "invalid-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
"""Codes of the errors that the framework raises."""

log = structlog.stdlib.get_logger(__name__)


class ErrorDetail(BaseModel):
    code: str = Field(description="A word for programs; it stays the same.", examples=["not-found"])
    message: str = Field(description="What was wrong and what to do, for people.")


class ErrorBody(BaseModel):
    """What every refused or failed request is answered with."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status, headers=headers)


def describe(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry of a route's errors; 400 and 401 are added to every route."""
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


def install_handlers(app: FastAPI) -> None:
    """Answer every exception a route can raise in the one form."""

    async def api_error(_request: Request, error: ApiError) -> JSONResponse:
        return error_response(error.status, error.code, error.message, error.headers)

    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(400, "invalid-request", "; ".join(_problem(item) for item in error.errors()[:10]))

    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        message = error.detail if error.detail != phrase else f"{phrase.lower()}: the API is described at /docs"
        code = _CODES.get(error.status_code, "refused")
        return error_response(error.status_code, code, message, error.headers)

    async def bad_cursor(_request: Request, error: CursorError) -> JSONResponse:
        return error_response(400, "invalid-request", f"cursor: {error}")

    async def no_record(_request: Request, error: StoreError) -> JSONResponse:
        log.warning("record not readable", error=str(error))
        return error_response(503, "record-unavailable", str(error), {"Retry-After": "5"})

    for kind, handler in (
        (ApiError, api_error),
        (RequestValidationError, invalid),
        (HTTPException, http_error),
        (CursorError, bad_cursor),
        (StoreError, no_record),
    ):
        app.add_exception_handler(kind, handler)  # type: ignore[arg-type] # each takes its own kind of exception


def _problem(item: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path"))
    # The words of what checks a value of ours are a sentence as they are.
    return f"{where or 'body'}: {str(item['msg']).removeprefix('Value error, ')}"
