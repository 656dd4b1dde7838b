"""Handlers for selectors and replication rules, by which a group's members come."""

from typing import Final

from fastapi import APIRouter
from pydantic import SecretStr

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.ground_control.api.callers import Admin, Person, SharedContext
from harbor_satellite.ground_control.api.context import Context
from harbor_satellite.ground_control.api.schemas_rules import (
    IssuedRuleBody,
    RuleBody,
    RuleInHarbor,
    RuleRequest,
    SelectorBody,
    SelectorsBody,
)
from harbor_satellite.ground_control.groups import groups, harbor_rules, rules, selector_rows
from harbor_satellite.ground_control.groups.harbor_rules import MadeRule
from harbor_satellite.ground_control.people.audit_log import difference

router: Final = APIRouter(prefix="/api/groups", tags=["groups"])


@router.get("/{group}/selectors", summary="List a group's selectors")
def list_selectors(context: SharedContext, person: Person, group: str) -> SelectorsBody:
    """List a group's selectors in order."""
    del person
    with context.reading() as session:
        found = selector_rows.selectors_of(session, groups.show_group(session, group).id)
    return SelectorsBody(selectors=[SelectorBody.of(selector) for selector in found])


@router.put("/{group}/selectors", summary="Replace a group's selectors")
def replace_selectors(context: SharedContext, editor: Admin, group: str, body: SelectorsBody) -> SelectorsBody:
    """Give a group these selectors and no others; they are looked up whenever the group is published, first soon.

    A lookup that fails takes nothing from any site: what was published of it stays, and the group shows why.
    """
    wanted = [item.selector(number) for number, item in enumerate(body.selectors)]
    after = SelectorsBody(selectors=[SelectorBody.of(selector) for selector in wanted])
    with context.writing() as session:
        replaced = selector_rows.replace_selectors(session, group, wanted, context.clock())
        before = SelectorsBody(selectors=[SelectorBody.of(selector) for selector in replaced])
        changes = difference(before.model_dump(mode="json"), after.model_dump(mode="json"))
        editor.record(session, "group.select", f"group:{group}", changes)
    return after


@router.get("/{group}/rule", summary="Show a group's replication rule")
def show_rule(context: SharedContext, person: Person, group: str) -> RuleBody:
    """Show a group's replication rule, without its secret."""
    del person
    with context.reading() as session:
        return RuleBody.of(rules.show_rule(session, group), context.options.public_url)


@router.post("/{group}/rule", summary="Make a group's replication rule, or give it a new secret")
def make_rule(context: SharedContext, editor: Admin, group: str, body: RuleRequest) -> IssuedRuleBody:
    """Let a replication rule of Harbor say what belongs to a group; the answer says what to fill in at Harbor.

    Harbor sends manifests only: what it pushes becomes a member, what it deletes is none any more. With ``in_harbor``
    endpoint and rule are made there, and everything that matches is sent at once. Repeating this gives a new secret;
    members stay.
    """
    if body.in_harbor is not None:
        harbor_rules.check_reachable(context.source.harbor, context.options.public_url)
    with context.writing() as session:
        secret, replaced = rules.issue_secret(session, group, context.clock())
        editor.record(session, "rule.issue", f"group:{group}", {"secret": ["", "changed"]})
    if body.in_harbor is not None:
        # Harbor logs in to the sink while it is told of it: no transaction may be open here.
        try:
            made = _make_in_harbor(context, group, secret, body.in_harbor)
        except HarborSatelliteError:
            with context.writing() as session:
                rules.take_secret_back(session, group, secret, replaced)
            raise
        with context.writing() as session:
            rules.note_harbor_ids(session, group, made.registry_id, made.policy_id)
    with context.reading() as session:
        shown = RuleBody.of(rules.show_rule(session, group), context.options.public_url)
    return IssuedRuleBody(**shown.model_dump(), secret=secret)


@router.delete("/{group}/rule", summary="Delete a group's replication rule")
def delete_rule(context: SharedContext, editor: Admin, group: str, *, keep_in_harbor: bool = False) -> dict[str, str]:
    """Delete a group's rule with all that it pushed, at Harbor first if Ground Control made it there.

    With ``keep_in_harbor`` what was made at Harbor stays, refused from now on: for a Harbor that is gone.
    """
    with context.reading() as session:
        known = rules.show_rule(session, group)
    if not keep_in_harbor:
        harbor_rules.remove_rule(context.source.harbor, known.harbor_registry_id, known.harbor_policy_id)
    with context.writing() as session:
        count = rules.delete_rule(session, group, context.clock())
        editor.record(session, "rule.delete", f"group:{group}", {"member_count": [count, 0]})
    return {}


def _make_in_harbor(context: Context, group: str, secret: SecretStr, wanted: RuleInHarbor) -> MadeRule:
    harbor = harbor_rules.check_reachable(context.source.harbor, context.options.public_url)
    return harbor_rules.make_rule(
        harbor, group, url=context.options.public_url, username=group, secret=secret, wanted=wanted.filter()
    )
