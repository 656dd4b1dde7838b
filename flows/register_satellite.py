"""Register this site: exchange its one-time token for credentials, once."""

from __future__ import annotations

from prefect import flow

from tasks.ground_control import claim_token


@flow(name="register-satellite", persist_result=False)
def register_satellite() -> str:
    """Exchange the site's one-time token for credentials and keep them; return the satellite's name."""
    return claim_token()
