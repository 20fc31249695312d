"""The HTTP application: routes, guard and description put together."""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from bridge.api import asterisk, calls, docs, handing_over, health, stream, supervise, trace, trunks
from bridge.api.asterisk_control import AsteriskControl, NoAsterisks
from bridge.api.carrier import CarrierRest, FindCall
from bridge.api.control import BridgeControl
from bridge.api.edge import Edge
from bridge.api.errors import describe, install_handlers
from bridge.api.guard import PROBES, Guard
from bridge.api.live import LiveEvents
from bridge.api.metrics import Metrics
from bridge.api.services import ApiSettings, Services
from bridge.store.call_log import CallLog
from bridge.store.store import Store

DESCRIPTION = """Calls of this bridge: what happens on them, what was said, dialling out and hanging up.

Every request brings the API key, which the first start puts into the data directory's file `api-key`:
`Authorization: Bearer KEY` or `X-API-Key: KEY`. To read with a browser, give it as the password of any user name.
Without a key only `/healthz` and `/readyz` answer, with one word.

Errors are always `{"error": {"code": ..., "message": ...}}`: the code is for programs, the message for people.
Times are UTC; times within a call are ms since its answer."""


def create_app(
    control: BridgeControl,
    *,
    store: Store,
    call_log: CallLog,
    live: LiveEvents,
    metrics: Metrics,
    settings: ApiSettings,
    api_key: str,
    find_bot_call: FindCall = lambda _: None,
    asterisks: AsteriskControl | None = None,
    more: Iterable[APIRouter] = (),
) -> FastAPI:
    """The application, to be run by `HttpServer`. `live.publish` and `metrics.observe` must be fed by the caller
    (`call_log.subscribe`). `find_bot_call` gives a live call that a remote bot has; `asterisks` is None where there
    are none; `more` are routes that are made for this bridge."""
    app = FastAPI(
        title="Offhook",
        version=_version(),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        responses=describe(400, 401),
    )
    app.state.services = Services(control, store, call_log, live, metrics, settings, asterisks or NoAsterisks())
    install_handlers(app)
    for part in (calls, handing_over, supervise, stream, trace, trunks, asterisk, health):
        app.include_router(part.router)
    for router in more:
        app.include_router(router)
    metrics.register(lambda: _readings(call_log, live))
    _add_description(app)
    # The last one added is the outermost.
    app.add_middleware(Guard, api_key=api_key)
    app.add_middleware(CarrierRest, find=find_bot_call)
    app.add_middleware(Edge, counted=metrics.count_request)
    return app


def _readings(call_log: CallLog, live: LiveEvents) -> Mapping[str, float]:
    stats = call_log.stats
    return {
        "record_events_queued": stats.queued,
        "record_events_written_total": stats.written,
        "record_events_dropped_total": stats.dropped,
        "record_events_rejected_total": stats.rejected,
        "record_write_failures_total": stats.failures,
        "http_event_streams": live.followers,
    }


def _add_description(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    async def schema() -> dict[str, Any]:
        return app.openapi()

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def description() -> HTMLResponse:
        # Made here, with no script and nothing from a CDN: a box at a customer's often has no internet.
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(docs.page(app.openapi()), headers=policy)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    # Made at the start, where 30 ms of CPU hurt no call.
    openapi()
    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to change the schema


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path, operation in _operations(schema):
        # Invalid requests are answered 400 in our own form, not FastAPI's 422.
        responses = operation["responses"]
        responses.pop("422", None)
        for status, answer in responses.items():
            # FastAPI takes a route's errors to be of its success's type (audio/wav, text/event-stream).
            if int(status) >= 400 and status != "416" and "application/json" not in answer.get("content", {}):
                answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
        if path in PROBES:
            operation["security"] = [{}, {"bearer": []}, {"header": []}]
    components = schema.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    schema["security"] = [{"bearer": []}, {"header": []}]
    return schema


def _operations(schema: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            yield path, operation


def _version() -> str:
    try:
        return version("offhook")
    except PackageNotFoundError:
        return "0"
