"""Handlers for what Harbor calls by itself: webhooks, and the adapter of harbor-next; and for webhooks' secrets."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError, HarborSatelliteError, InvalidInputError
from harbor_satellite.ground_control.api import routes_groups
from harbor_satellite.ground_control.api.callers import Admin, Person, SharedContext, client_address, refuse_until
from harbor_satellite.ground_control.api.schemas import MessageBody
from harbor_satellite.ground_control.api.schemas_groups import GroupBody, GroupSync
from harbor_satellite.ground_control.api.schemas_rules import IssuedWebhookBody, WebhookBody, WebhookRequest
from harbor_satellite.ground_control.groups import harbor_rules, hooks
from harbor_satellite.harbor.webhooks import delete_webhook as delete_at_harbor
from harbor_satellite.harbor.webhooks import ensure_webhook

router: Final = APIRouter(tags=["harbor"])

_POLICY_NAME: Final = "ground-control"


async def read_event(request: Request) -> bytes:
    """Return the body of an event, which is short."""
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > hooks.EVENT_MAX_BYTES:
            raise InvalidInputError(f"an event has at most {hooks.EVENT_MAX_BYTES} bytes")
    return bytes(raw)


@router.post("/groups/sync", summary="Create a group, or replace what it lists (the adapter of harbor-next)")
def sync_group(context: SharedContext, editor: Admin, body: GroupSync) -> GroupBody:
    """Do what ``POST /api/groups/sync`` does: what the group lists is replaced, selectors and rule members stay.

    A rule of harbor-next that is started by an event sends only what changed, and so takes all else off the list: let
    it start by hand or on a schedule, or use a replication rule of this service (``POST /api/groups/{group}/rule``).
    """
    return routes_groups.replace_group(context, editor, body)


@router.post("/webhooks/harbor/{project}", summary="Take an event of a project")
def take_event(
    request: Request, context: SharedContext, project: str, raw: Annotated[bytes, Depends(read_event)]
) -> MessageBody:
    """Publish soon what an event may have changed; one of an unknown type is taken and ignored.

    The secret of the project's webhook is the whole header ``Authorization``.
    """
    secret = SecretStr(request.headers.get("Authorization", ""))
    try:
        with context.reading() as session:
            hooks.authenticate_hook(session, project, secret)
    except AuthenticationError:
        refuse_until(context.note_secret_failure((client_address(request), "webhook")))
        raise
    event = hooks.parse_event(raw)
    with context.writing() as session:
        delay, now = context.options.webhook_debounce_seconds, context.clock()
        touched = hooks.take_event(session, project, event, now, delay_seconds=delay)
    return MessageBody(message=f"{len(touched)} groups are looked at")


@router.get("/api/webhooks", summary="List webhooks")
def list_webhooks(context: SharedContext, person: Person) -> list[WebhookBody]:
    """List webhooks by project, and when an event of each last came."""
    del person
    with context.reading() as session:
        return [WebhookBody.of(hook, context.options.public_url) for hook in hooks.list_hooks(session)]


@router.post("/api/webhooks", summary="Make a project's webhook, or give it a new secret")
def make_webhook(context: SharedContext, editor: Admin, body: WebhookRequest) -> IssuedWebhookBody:
    """Let the webhooks of a project be believed; the answer says what to fill in at Harbor.

    With ``in_harbor`` the webhook is made there.
    """
    public_url = context.options.public_url
    harbor = harbor_rules.check_reachable(context.source.harbor, public_url) if body.in_harbor else None
    with context.writing() as session:
        secret, replaced = hooks.issue_hook_secret(session, body.project, context.clock())
        editor.record(session, "webhook.issue", f"webhook:{body.project}", {"secret": ["", "changed"]})
        hook = hooks.show_hook(session, body.project)
    if harbor is not None:
        try:
            policy_id = ensure_webhook(
                harbor,
                body.project,
                name=_POLICY_NAME,
                address=hook.address(public_url),
                auth_header=secret,
                skip_verify=body.insecure,
            )
        except HarborSatelliteError:
            with context.writing() as session:
                hooks.take_hook_secret_back(session, body.project, secret, replaced)
            raise
        with context.writing() as session:
            hooks.note_hook_policy(session, body.project, policy_id)
            hook = hooks.show_hook(session, body.project)
    return IssuedWebhookBody(**WebhookBody.of(hook, public_url).model_dump(), secret=secret)


@router.delete("/api/webhooks/{project}", summary="Delete a project's webhook")
def delete_webhook(
    context: SharedContext, editor: Admin, project: str, *, keep_in_harbor: bool = False
) -> dict[str, str]:
    """Refuse a project's events from now on; a webhook that Ground Control made at Harbor is deleted there first."""
    with context.reading() as session:
        hook = hooks.show_hook(session, project)
    if hook.harbor_policy_id is not None and not keep_in_harbor:
        if context.source.harbor is None:
            raise InvalidInputError("the source is no Harbor (any more): repeat this with keep_in_harbor")
        delete_at_harbor(context.source.harbor, project, hook.harbor_policy_id)
    with context.writing() as session:
        hooks.delete_hook(session, project)
        editor.record(session, "webhook.delete", f"webhook:{project}")
    return {}
