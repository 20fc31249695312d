"""Probes and metrics."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from bridge.api.metrics import CONTENT_TYPE
from bridge.api.schemas import Status
from bridge.api.services import Bridge

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process is alive", response_model_exclude_none=True)
async def healthz() -> Status:
    """200 as long as the process answers at all. Works without a key."""
    return Status(status="ok")


@router.get(
    "/readyz",
    summary="Whether calls are taken",
    response_model=Status,
    responses={503: {"model": Status, "description": "No new calls are taken."}},
)
async def readyz(request: Request, bridge: Bridge) -> Response:
    """503 while the bridge starts, drains, is overloaded, or can't write its record. Works without a key; with it,
    the answer says why."""
    ready, reasons = bridge.control.ready()
    reasons = list(reasons)
    if (problem := bridge.call_log.problem) is not None:
        ready = False
        reasons.append(problem)
    status = Status(status="ready" if ready else "not-ready")
    if request.state.authenticated:
        status = Status(status=status.status, reasons=reasons, live_calls=len(bridge.control.live_calls()))
    return JSONResponse(status.model_dump(exclude_none=True), status_code=200 if ready else 503)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(bridge: Bridge) -> Response:
    """Counters and gauges in Prometheus' text form. Its scrape job needs the key:
    `authorization: {credentials_file: DATA_DIR/api-key}`."""
    return Response(bridge.metrics.render(), media_type=CONTENT_TYPE)
