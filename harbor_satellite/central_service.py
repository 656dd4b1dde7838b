"""The central service: Ground Control's API, and a Prefect of its own where none is named.

What must not live here: what the API does, or what the flows do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import uvicorn

from harbor_satellite.central_automations import apply_automations
from harbor_satellite.errors import ConflictError, HarborSatelliteError, InvalidInputError
from harbor_satellite.ground_control.api.app import create_app
from harbor_satellite.ground_control.api.context import AppOptions
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.people.audit_log import write_audit_lines_to
from harbor_satellite.ground_control.people.users import ensure_first_user
from harbor_satellite.ground_control.satellites.source_factory import open_source
from harbor_satellite.processes import Child, check_port_is_free
from harbor_satellite.project import project_dir
from harbor_satellite.registry.cosign import Cosign
from harbor_satellite.state.names import WORKER_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic import SecretStr

    from harbor_satellite.settings import GroundControlSettings

_LOG = logging.getLogger(__name__)
_PREFECT_START_SECONDS: Final = 240.0  # it is minutes on a small machine that has other things to do as well
_DEPLOY_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 5
_KEEP_ALIVE_SECONDS: Final = 180  # longer than sites wait between two polls: each would be another handshake
_WATCH_SECONDS: Final = 1.0
_RETENTION_DAYS: Final = 7
_FRAME_MAX_BYTES: Final = 2 * 1024 * 1024  # of a websocket; a larger one ends it, and its sender would send it again
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  (named here in order to refuse it)
CENTRAL_POOL: Final = "central"


def serve(settings: GroundControlSettings, *, prefect_port: int = 4200) -> None:
    """Serve Ground Control until SIGTERM; with a Prefect server and central worker if ``PREFECT_API_URL`` is unset.

    Raises:
        HarborSatelliteError: the database, the source, the signing key or Prefect cannot be used.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    write_audit_lines_to(settings.audit_log_file)
    migrate(settings.database())
    _check_first_start(settings)
    if os.environ.get("PREFECT_API_URL"):
        _serve_api(settings)
        return
    _check_signing(settings)
    with own_prefect(settings.data_dir.resolve(), prefect_port, settings.run_retention_days) as children:
        with _ending_with(children):
            _serve_api(settings)
        for child in children:
            child.check()


def _check_signing(settings: GroundControlSettings) -> None:
    """Try the signing key now: a wrong password is said here, and not by every publication."""
    if settings.signing_key is not None:
        Cosign(settings.cosign).public_key(settings.signing_key, settings.signing_key_password)


def _check_first_start(settings: GroundControlSettings) -> None:
    """Make the first user now, so that a missing password is said before anything is started."""
    engine = make_engine(settings.database())
    try:
        with make_session_factory(engine).begin() as session:
            ensure_first_user(session, _admin_password(settings), datetime.now(UTC))
    except ConflictError:
        _LOG.info("first user made by another replica at the same time")
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}: HARBOR_SATELLITE_GROUND_CONTROL_ADMIN_PASSWORD") from error
    finally:
        engine.dispose()


def _admin_password(settings: GroundControlSettings) -> SecretStr | None:
    return settings.admin_password if settings.admin_password.get_secret_value() else None


@contextlib.contextmanager
def own_prefect(data_dir: Path, port: int, retention_days: int = _RETENTION_DAYS) -> Iterator[tuple[Child, Child]]:
    """Run a Prefect server with a central worker beside this process, and deploy the central flows to it.

    Its API's URL is put into ``PREFECT_API_URL``.

    Yields:
        The server and the worker.
    """
    check_port_is_free("127.0.0.1", port)
    api_url = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_API_URL"] = api_url
    os.environ.update(prefect_environment(data_dir, retention_days))
    server = start_prefect_server(data_dir, port, retention_days)
    worker: Child | None = None
    try:
        server.wait_for(f"{api_url}/health", _PREFECT_START_SECONDS)
        worker = start_central_worker(data_dir)
        deploy()
        yield server, worker
    finally:
        if worker:
            worker.stop()
        server.stop()


@contextlib.contextmanager
def _ending_with(children: Sequence[Child]) -> Iterator[None]:
    """End this process's serving as soon as one of the children ends: whoever supervises it starts all anew."""
    stopping = threading.Event()

    def watch() -> None:
        while not stopping.wait(_WATCH_SECONDS):
            for child in children:
                if child.returncode is not None:
                    _LOG.error("child ended process=%s status=%s log=%s", child.name, child.returncode, child.log)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    thread = threading.Thread(target=watch, name="children", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def prefect_environment(data_dir: Path, retention_days: int = _RETENTION_DAYS) -> dict[str, str]:
    """Return the settings of a Prefect that belongs to this service alone, and keeps runs for so many days."""
    return {
        "PREFECT_HOME": str(data_dir / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT": "30",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        # What grows with every run; Prefect keeps events for a week and runs for ever if nothing is said.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(retention_days * 24 * 3600),  # seconds
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }


def start_prefect_server(data_dir: Path, port: int, retention_days: int = _RETENTION_DAYS) -> Child:
    """Start the real Prefect server."""
    module = "harbor_satellite.prefect_server"  # Prefect's own command line; see there
    argv = [sys.executable, "-m", module, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    env = prefect_environment(data_dir, retention_days)
    return Child("prefect server", argv, env=env, log=data_dir / "logs" / "prefect-server.log")


def start_central_worker(data_dir: Path) -> Child:
    """Start the central worker: Prefect's own command with our worker type."""
    argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", CENTRAL_POOL, "--type", WORKER_TYPE]
    env = {
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    }
    return Child("central worker", argv, env=env, log=data_dir / "logs" / "central-worker.log")


def deploy() -> None:
    """Apply ``prefect.yaml``, the central deployments with their schedules and triggers, and the automations beside it.

    Safe to repeat.

    Raises:
        HarborSatelliteError: Prefect refused; its own words are in the message.
    """
    from prefect.client.orchestration import get_client  # noqa: PLC0415  (after the environment is complete)
    from prefect.client.schemas.actions import WorkPoolCreate  # noqa: PLC0415
    from prefect.exceptions import ObjectAlreadyExists  # noqa: PLC0415

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=CENTRAL_POOL, type=WORKER_TYPE))
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        done = subprocess.run(  # noqa: S603  (argv is ours)
            argv, cwd=project_dir(), capture_output=True, text=True, timeout=_DEPLOY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise HarborSatelliteError(f"deploying the central flows took more than {_DEPLOY_SECONDS:.0f} s") from error
    if done.returncode:
        raise HarborSatelliteError(f"deploying the central flows failed: {(done.stdout + done.stderr)[-2000:]}")
    with get_client(sync_client=True) as client:
        apply_automations(client)


def _allow_many_connections() -> None:
    """Take as many open files as the system gives: every site keeps a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _serve_api(settings: GroundControlSettings) -> None:
    _allow_many_connections()
    engine = make_engine(settings.database())
    try:
        with open_source(
            settings.source_kind,
            settings.source_url,
            settings.source_username,
            settings.source_password,
            verify=str(settings.source_ca) if settings.source_ca else True,
            htpasswd=settings.source_htpasswd,
            robot_duration_days=settings.robot_duration_days,
        ) as source:
            app = create_app(_options(settings), make_session_factory(engine), source)
            _LOG.info("serving host=%s port=%d", settings.host, settings.port)
            uvicorn.run(
                app,
                host=settings.host,
                port=settings.port,
                log_level="warning",
                access_log=False,
                ws="websockets-sansio",  # of the workers' events
                ws_max_size=_FRAME_MAX_BYTES,  # counted after decompression
                ws_ping_timeout=30,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                server_header=False,  # every poll's answer carries them, and nobody reads them
                date_header=False,
                proxy_headers=False,  # an address that anybody can make up must not be a key of the throttle
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
    finally:
        engine.dispose()


def _options(settings: GroundControlSettings) -> AppOptions:
    return AppOptions(
        source_url=settings.source_public_url or settings.source_url,
        public_url=_public_url(settings),
        prefect_api_url=settings.prefect_public_url,
        prefect_api_internal_url=os.environ.get("PREFECT_API_URL", ""),
        prefect_api_auth=settings.prefect_auth_string,
        admin_password=_admin_password(settings),
        metrics_token=settings.metrics_token,
        token_ttl=timedelta(seconds=settings.token_ttl_seconds),
        renewal_grace=timedelta(days=settings.renewal_grace_days),
    )


def _public_url(settings: GroundControlSettings) -> str:
    """Return how sites reach this service; a port that the system chooses is known to nobody yet."""
    if settings.public_url or settings.port == 0:
        return settings.public_url
    if settings.host in _EVERYWHERE:
        _LOG.warning("sites get no Prefect API: set HARBOR_SATELLITE_GROUND_CONTROL_PUBLIC_URL")
        return ""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    if settings.host == "localhost" or settings.host.startswith("127.") or settings.host == "::1":
        _LOG.warning(
            "sites are told to call %s, which only this machine reaches; for sites elsewhere set "
            "HARBOR_SATELLITE_GROUND_CONTROL_PUBLIC_URL before they register",
            url,
        )
    return url
