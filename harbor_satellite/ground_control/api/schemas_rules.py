"""HTTP bodies of selectors, replication rules and webhooks."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, SecretStr, field_serializer

from harbor_satellite.ground_control.api.schemas import Body, Text
from harbor_satellite.ground_control.groups.harbor_rules import RuleFilter
from harbor_satellite.ground_control.groups.hooks import HookView
from harbor_satellite.ground_control.groups.rules import RuleView
from harbor_satellite.ground_control.groups.selectors import Selector, make_selector

_Texts = Annotated[list[Text], Field(max_length=1000)]


class SelectorBody(Body):
    """What a group shall hold of one project, looked up whenever the group is published."""

    project: Text
    repository: Text = "**"
    """Pattern over names below the project: ``*`` and ``?`` within a component, ``**``, ``{a,b}``, ``[a-z]``."""
    tag: Text = "**"
    """Pattern over tags."""
    labels: _Texts = Field(default_factory=list)
    """An artifact must have all of them."""
    platforms: _Texts = Field(default_factory=list)
    """``os/architecture[/variant]``: an artifact must have one of them; empty: whatever."""
    newest: Annotated[int | None, Field(strict=True)] = None
    """How many artifacts of each repository, by push time; null: all."""
    priority: Annotated[int, Field(strict=True)] = 0
    """Higher ones cross the link first."""

    def selector(self, number: int) -> Selector:
        """Return it checked; raises ``InvalidInputError``, whose message names the place."""
        return make_selector(f"selectors[{number}]", **self.model_dump())

    @classmethod
    def of(cls, selector: Selector) -> "SelectorBody":
        """Build it from a selector."""
        return cls(
            project=selector.project,
            repository=selector.repository.text,
            tag=selector.tag.text,
            labels=sorted(selector.labels),
            platforms=[str(platform) for platform in selector.platforms],
            newest=selector.newest,
            priority=selector.priority,
        )


class SelectorsBody(Body):
    """All selectors of a group, in order: of one tag, what the first says counts."""

    selectors: Annotated[list[SelectorBody], Field(max_length=1000)]


class RuleInHarbor(Body):
    """The rule that Ground Control shall make at Harbor."""

    name_filter: Text
    """Harbor's pattern over ``project/repository``."""
    tag_filter: Text = ""
    """Harbor's pattern over tags; empty: all."""
    label: Text = ""
    """A label that artifacts must have. Then the rule runs every ten minutes, since labels start nothing at Harbor,
    and what loses the label stays a member."""
    insecure: bool = False
    """Whether Harbor takes any certificate of this service."""

    def filter(self) -> RuleFilter:
        """Return it as the use case takes it."""
        return RuleFilter(self.name_filter, self.tag_filter, self.label, self.insecure)


class RuleRequest(Body):
    """A replication rule's credential to be made, or to be made anew."""

    in_harbor: RuleInHarbor | None = None
    """Null: somebody makes endpoint and rule by hand, with what the answer says."""


class RuleBody(Body):
    """A group's replication rule."""

    group: str
    endpoint: str
    """What Harbor's endpoint (type docker-registry) must name; empty: the public URL of this service is not set."""
    namespace: str
    """The rule's destination namespace, flattening off."""
    username: str
    created_at: datetime
    last_push_at: datetime | None
    """To the minute."""
    member_count: int
    harbor_registry_id: int | None
    """Of the endpoint, if Ground Control made it."""
    harbor_policy_id: int | None
    """Of the rule, if Ground Control made it."""

    @classmethod
    def of(cls, rule: RuleView, public_url: str) -> "RuleBody":
        """Build it from what is known."""
        return cls(
            group=rule.group,
            endpoint=public_url,
            namespace=rule.group,
            username=rule.username,
            created_at=rule.created_at,
            last_push_at=rule.last_push_at,
            member_count=rule.member_count,
            harbor_registry_id=rule.harbor_registry_id,
            harbor_policy_id=rule.harbor_policy_id,
        )


class IssuedRuleBody(RuleBody):
    """The same, with the secret, shown this once."""

    secret: SecretStr

    @field_serializer("secret", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class WebhookRequest(Body):
    """A webhook's secret to be made, or to be made anew."""

    project: Text
    in_harbor: bool = False
    """Whether Ground Control makes the webhook at Harbor itself."""
    insecure: bool = False
    """Whether Harbor takes any certificate of this service."""


class WebhookBody(Body):
    """What Harbor's webhooks of one project must bring, and when one last came."""

    project: str
    address: str
    """What the webhook must name; empty: the public URL of this service is not set."""
    created_at: datetime
    last_event_at: datetime | None
    harbor_policy_id: int | None
    """At Harbor, if Ground Control made it."""

    @classmethod
    def of(cls, hook: HookView, public_url: str) -> "WebhookBody":
        """Build it from what is known."""
        return cls(
            project=hook.project,
            address=hook.address(public_url),
            created_at=hook.created_at,
            last_event_at=hook.last_event_at,
            harbor_policy_id=hook.harbor_policy_id,
        )


class IssuedWebhookBody(WebhookBody):
    """The same, with the secret, shown this once."""

    secret: SecretStr
    """The whole value of the header ``Authorization``."""

    @field_serializer("secret", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()
