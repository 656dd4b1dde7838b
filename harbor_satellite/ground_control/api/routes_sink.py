"""Handlers for the endpoint of Harbor's replication rules: a registry that takes manifests only.

Of a manifest its digest is kept, as a record that the group holds it; no content is. Every blob is said to be there,
so that Harbor uploads none.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from harbor_satellite.errors import AuthenticationError, SizeLimitError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.api.audit_refusals import note_caller
from harbor_satellite.ground_control.api.callers import (
    BasicHeader,
    SharedContext,
    client_address,
    parse_basic,
    refuse_until,
    request_id,
)
from harbor_satellite.ground_control.api.sink_answers import VERSION, SinkRoute, head_of, refuse
from harbor_satellite.ground_control.groups import rule_members, rules
from harbor_satellite.ground_control.groups.rule_members import PushedManifest
from harbor_satellite.ground_control.groups.rules import RuleIdentity
from harbor_satellite.ground_control.groups.sink_paths import SinkPath, parse_sink_path
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.people.audit_log import Actor
from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES, parse_manifest
from harbor_satellite.oci.digest import Digest, is_digest

router: Final = APIRouter(tags=["harbor"], route_class=SinkRoute, include_in_schema=False)

_BLOB_LENGTH: Final = "1024"  # nobody knows it here; 0 would say that it is damaged


def require_rule(request: Request, context: SharedContext, basic: BasicHeader) -> RuleIdentity:
    """Return the rule that calls with its credential."""
    username, secret = parse_basic(basic)
    try:
        with context.reading() as session:
            caller = rules.authenticate_rule(session, username, secret)
    except AuthenticationError:
        refuse_until(context.note_secret_failure((client_address(request), username[:128])))
        raise
    note_caller(request, f"rule:{caller.group}")
    return caller


CallingRule = Annotated[RuleIdentity, Depends(require_rule)]


def require_place(caller: CallingRule, path: str) -> SinkPath:
    """Return what the request is about: something of the caller's own group."""
    place = parse_sink_path(path)
    if place is None:
        raise HTTPException(404, "not a path of the registry protocol")
    if place.group != caller.group:
        raise HTTPException(403, f"this credential is for namespace {caller.group}")
    return place


Place = Annotated[SinkPath, Depends(require_place)]


async def read_manifest(request: Request) -> bytes:
    """Return the body, which is no longer than a manifest may be."""
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > MANIFEST_MAX_BYTES:
            raise SizeLimitError(f"a manifest has at most {MANIFEST_MAX_BYTES} bytes")
    return bytes(raw)


@router.api_route("/v2/", methods=["GET", "HEAD"])
@router.api_route("/v2", methods=["GET", "HEAD"])
def greet(caller: CallingRule) -> Response:
    """Say that this is a registry; Harbor asks when the endpoint is registered, and before each replication."""
    del caller
    return JSONResponse({}, headers=VERSION)


@router.head("/v2/{path:path}")
def look(context: SharedContext, caller: CallingRule, place: Place) -> Response:
    """Tell whether a manifest was pushed; a blob is always there."""
    if place.kind == "blobs":
        return Response(
            None,
            200,
            {**VERSION, "Docker-Content-Digest": place.reference, "Content-Length": _BLOB_LENGTH},
            "application/octet-stream",
        )
    with context.reading() as session:
        found = rule_members.find_manifest(session, caller.group_id, place.repository, place.reference)
    return Response(None, 404, VERSION) if found is None or place.kind != "manifests" else head_of(found)


@router.get("/v2/{path:path}")
def read(context: SharedContext, caller: CallingRule, place: Place) -> Response:
    """List the tags that are members; content is never given out."""
    if place.kind != "tags":
        unknown = "MANIFEST_UNKNOWN" if place.kind == "manifests" else "BLOB_UNKNOWN"
        return refuse(404, "this endpoint takes manifests and gives none out; pull from the source", unknown)
    with context.reading() as session:
        tags = rule_members.list_tags(session, caller.group_id, place.repository)
    if not tags:
        return refuse(404, f"no tags of {place.repository} are members of group {caller.group}", "NAME_UNKNOWN")
    return JSONResponse({"name": f"{place.group}/{place.repository}", "tags": tags}, headers=VERSION)


@router.put("/v2/{path:path}")
def push(
    request: Request,
    context: SharedContext,
    caller: CallingRule,
    place: Place,
    raw: Annotated[bytes, Depends(read_manifest)],
) -> Response:
    """Take a manifest: what a tag names becomes a member of the group."""
    if place.kind != "manifests":
        return _unsupported()
    manifest, subject = _pushed(place, raw, request.headers.get("Content-Type", ""))
    with context.writing() as session:
        now = context.clock()
        before = rule_members.put_manifest(session, caller.group_id, manifest, now)
        rules.note_push(session, caller, now)
        if before is not None:
            changes = {f"{place.repository}:{place.reference}": [before or None, str(manifest.digest)]}
            actor = _actor(request, caller)
            audit_log.record(session, actor, "member.push", f"group:{caller.group}", changes=changes, now=now)
            delay = context.options.webhook_debounce_seconds
            outbox.enqueue_groups_changed_soon(session, [caller.group], now, delay_seconds=delay)
    headers = {
        **VERSION,
        "Location": f"/v2/{place.group}/{place.repository}/manifests/{manifest.digest}",
        "Docker-Content-Digest": str(manifest.digest),
    }
    # Without it a client would keep a list of referrers under a tag, as for registries that know none.
    return Response(None, 201, {**headers, **({"OCI-Subject": str(subject)} if subject else {})})


@router.delete("/v2/{path:path}")
def remove(request: Request, context: SharedContext, caller: CallingRule, place: Place) -> Response:
    """Take a manifest away with every tag on it, or one tag."""
    if place.kind != "manifests":
        return _unsupported()
    with context.writing() as session:
        now = context.clock()
        gone = rule_members.delete_reference(session, caller.group_id, place.repository, place.reference, now)
        if gone:
            changes = {f"{place.repository}:{tag}": [digest, None] for tag, digest in sorted(gone.items())}
            actor = _actor(request, caller)
            audit_log.record(session, actor, "member.delete", f"group:{caller.group}", changes=changes, now=now)
            delay = context.options.webhook_debounce_seconds
            outbox.enqueue_groups_changed_soon(session, [caller.group], now, delay_seconds=delay)
    if gone is None:
        return refuse(404, f"{place.repository}/{place.reference} was not pushed here", "MANIFEST_UNKNOWN")
    return Response(None, 202, VERSION)


@router.api_route("/v2/{path:path}", methods=["POST", "PATCH"])
def upload(caller: CallingRule, place: Place) -> Response:
    """Refuse an upload: every blob was said to be there."""
    del caller, place
    return _unsupported()


def _pushed(place: SinkPath, raw: bytes, content_type: str) -> tuple[PushedManifest, Digest | None]:
    what = f"{place.repository}/{place.reference}"
    manifest = parse_manifest(raw, content_type, what)
    digest = Digest.of(raw)
    if is_digest(place.reference):
        digest = Digest.parse(place.reference)
        digest.verify(raw, what)
    subject = manifest.subject.digest if manifest.subject else None
    return PushedManifest(place.repository, place.reference, digest, manifest.media_type, len(raw)), subject


def _actor(request: Request, caller: RuleIdentity) -> Actor:
    return Actor(f"rule:{caller.group}", client_address(request), request_id(request))


def _unsupported() -> Response:
    return refuse(405, "this endpoint takes manifests only; the sites pull blobs from the source")
