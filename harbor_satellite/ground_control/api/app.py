"""The API as one ASGI app: routes, error answers, and the threads that live as long as it does."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi.concurrency import run_in_threadpool
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import OperationalError

import harbor_satellite
from harbor_satellite.errors import ConflictError
from harbor_satellite.ground_control.api import (
    routes_audit,
    routes_configs,
    routes_fleet,
    routes_groups,
    routes_health,
    routes_hooks,
    routes_people,
    routes_rollouts,
    routes_rules,
    routes_satellites,
    routes_sink,
    routes_sites,
)
from harbor_satellite.ground_control.api.asgi import RequestBoundary
from harbor_satellite.ground_control.api.context import GATEWAY_PATH, AppOptions, Context, utc_now
from harbor_satellite.ground_control.api.error_answers import add_error_answers
from harbor_satellite.ground_control.api.metrics import Metrics, RequestMeter
from harbor_satellite.ground_control.api.readiness import ReadinessProbe
from harbor_satellite.ground_control.api.schemas import ErrorBody
from harbor_satellite.ground_control.dispatcher import OutboxDispatcher
from harbor_satellite.ground_control.gateway.app import Gateway
from harbor_satellite.ground_control.people import users

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from fastapi import FastAPI

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.satellites.sources import Source

__all__ = ["AppOptions", "create_app"]

logger = logging.getLogger(__name__)

_TAGS = [
    {"name": "login", "description": "Sessions of people."},
    {"name": "users", "description": "People who may call this API."},
    {"name": "tokens", "description": "API tokens: what programs call this API with, for a person."},
    {"name": "groups", "description": "Named sets of artifacts, and which satellites follow them."},
    {"name": "satellites", "description": "Edge sites: register, watch, delete."},
    {"name": "configs", "description": "How satellites shall work, given to satellites and groups by name."},
    {"name": "fleet", "description": "Which sites are not on the state they should be on, and why."},
    {"name": "rollouts", "description": "Moving satellites to a generation in waves."},
    {"name": "audit", "description": "Who changed what."},
    {"name": "sites", "description": "What sites call themselves."},
    {"name": "harbor", "description": "What Harbor calls: webhooks, and the endpoint of its replication rules."},
    {"name": "health", "description": "Whether this service is up."},
]
_ROUTES = (
    routes_sites,  # called by far the most often, and routes are tried in turn
    routes_people,
    routes_audit,
    routes_groups,
    routes_rules,
    routes_configs,
    routes_satellites,
    routes_fleet,
    routes_rollouts,
    routes_hooks,
    routes_sink,
    routes_health,
)
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request breaks a rule; the message names it."},
    401: {"model": ErrorBody, "description": "Credentials or token missing or wrong."},
}


def create_app(
    options: AppOptions,
    session_factory: SessionFactory,
    source: Source,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """Build the API over a migrated database.

    Args:
        options: plain values; see ``AppOptions``.
        session_factory: see ``database.make_session_factory``; its engine is the caller's to dispose.
        source: where satellites pull from; see ``sources``.
        clock: what time it is; for tests.
    """
    context = Context(options, session_factory, source, clock)
    app = FastAPIOffline(
        redoc_url=None,
        title="Harbor Satellite Ground Control",
        summary="Groups of artifacts, the satellites that follow them, and how far each site is.",
        version=harbor_satellite.__version__,
        lifespan=_lifespan,
        openapi_tags=_TAGS,
        responses=_ERRORS,
        redirect_slashes=False,
        # Looked for at each request otherwise, which costs a twentieth of it; /metrics says what there is to say.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = context
    app.state.gateway = Gateway(context) if options.prefect_api_internal_url else None
    if app.state.gateway:
        app.mount(GATEWAY_PATH, app.state.gateway)  # first: most calls are for it, and routes are tried in turn
    for routes in _ROUTES:
        app.include_router(routes.router)
    add_error_answers(app)
    app.state.metrics, app.state.readiness = Metrics(context), ReadinessProbe(context)
    app.add_middleware(RequestMeter, metrics=app.state.metrics)
    app.add_middleware(RequestBoundary, body_max_bytes=options.body_max_bytes)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    gateway: Gateway | None = app.state.gateway
    await run_in_threadpool(_ensure_first_user, context)
    if gateway is None:
        yield
        return
    dispatcher = _dispatcher(context, gateway)
    dispatcher.start()
    try:
        async with gateway.running():
            yield
    finally:
        await run_in_threadpool(dispatcher.stop)


def _ensure_first_user(context: Context) -> None:
    try:
        with context.writing() as session:
            users.ensure_first_user(session, context.options.admin_password, context.clock())
    except ConflictError:
        logger.info("first user made by another replica at the same time")
    except OperationalError as error:
        # A database that is away now will be there later, and /health says so meanwhile.
        logger.warning("first user not looked for, the database is away error=%s", type(error).__name__)


def _dispatcher(context: Context, gateway: Gateway) -> OutboxDispatcher:
    url, auth = context.options.prefect_api_internal_url, context.options.prefect_api_auth
    return OutboxDispatcher(context.factory, url, auth, note_run=gateway.expect_run)
