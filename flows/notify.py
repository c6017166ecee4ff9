"""Notifications: Prefect automations tell a webhook of nights that failed, are late or run too long.

They are the server's: it tells while it runs, whatever became of runner and night. A message names the trial,
the run, its state and what the night said of it, which holds counts and pseudonyms. Prefect handles an event
again whose handling broke off, so a message may come more than once; it names its run.
"""

import json
from datetime import timedelta

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.artifacts import slug
from flows.nightly import nightly
from flows.site import SiteSettings

FAILED = frozenset({"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"})
BEGUN = frozenset({"prefect.flow-run.Running", "prefect.flow-run.Cancelled"})
ENDED = FAILED | {"prefect.flow-run.Completed", "prefect.flow-run.Cancelled"}


def notify(client: SyncPrefectClient, trial_id: str, tag: str, site: SiteSettings) -> None:
    """Make or renew a trial's automations, or remove them where the site names no webhook.

    One that was paused in the UI stays paused.
    """
    wanted: list[AutomationCore] = []
    if site.notify_url is not None:
        block = Webhook(
            url=SecretStr(site.notify_url), headers=SecretDict({"Content-Type": "application/json"})
        )
        block_id = block.save(f"cmrtrials-{slug(trial_id)}", overwrite=True)
        wanted = _automations(
            trial_id, tag, site, CallWebhook.model_validate({"block_document_id": block_id})
        )
    by_name = {one.name: one for one in wanted}
    for name in _names(trial_id).values():
        standing = client.read_automations_by_name(name)
        for surplus in standing[1:] if name in by_name else standing:
            client.delete_automation(surplus.id)
        if name not in by_name:
            continue
        if standing:
            renewed = by_name[name].model_copy(update={"enabled": standing[0].enabled})
            client.update_automation(standing[0].id, renewed)
        else:
            client.create_automation(by_name[name])


def _names(trial_id: str) -> dict[str, str]:
    return {
        what: f"cmrtrials {trial_id}: {words}"
        for what, words in {
            "failed": "a night failed",
            "late": "a night is late",
            "long": "a night runs too long",
        }.items()
    }


def _automations(trial_id: str, tag: str, site: SiteSettings, action: CallWebhook) -> list[AutomationCore]:
    """Make them; what a message says of the state is an expression of Prefect's templates."""
    names = _names(trial_id)

    def automation(what: str, state: str, message: str, **trigger: object) -> AutomationCore:
        event = EventTrigger.model_validate(
            {
                "match": {"prefect.resource.id": "prefect.flow-run.*"},
                "match_related": [
                    {"prefect.resource.role": "flow", "prefect.resource.name": nightly.name},
                    {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"},
                ],
                "for_each": {"prefect.resource.id"},
                **trigger,
            }
        )
        return AutomationCore(
            name=names[what],
            description="Made by `cmrtrials serve` from CMR_NOTIFY_URL; pausing it here holds.",
            trigger=event,
            actions=[action.model_copy(update={"payload": _payload(trial_id, state, message)})],
        )

    return [
        automation(
            "failed",
            "flow_run.state.name",
            "flow_run.state.message",
            posture=Posture.Reactive,
            expect=FAILED,
            # A busy server may handle an event twice; within this time it remembers that it has told it.
            within=timedelta(minutes=1),
        ),
        automation(
            "late",
            '"Late"',
            json.dumps(
                f"due for {site.notify_late_minutes:g} minutes and not begun; "
                f"is `cmrtrials serve` at work, or another run before it?"
            ),
            posture=Posture.Proactive,
            after={"prefect.flow-run.Late"},
            expect=BEGUN,
            within=timedelta(minutes=site.notify_late_minutes),
        ),
        automation(
            "long",
            '"Running"',
            json.dumps(f"has been running for more than {site.notify_long_minutes:g} minutes"),
            posture=Posture.Proactive,
            after={"prefect.flow-run.Running"},
            expect=ENDED,
            within=timedelta(minutes=site.notify_long_minutes),
        ),
    ]


def _payload(trial_id: str, state: str, message: str) -> str:
    """Write the template of a message in JSON; ``text`` is what chat programs show."""
    words = ["cmrtrials, trial ", trial_id, ": night "]
    text = " ~ ".join([*map(json.dumps, words), state, '": "', f'({message} or "")'])
    run = 'labels["prefect.resource.id"] | replace("prefect.flow-run.", "")'
    facts = {
        "text": text,
        "trial": json.dumps(trial_id),
        "state": state,
        "message": message,
        "flow_run_id": run,
    }
    return (
        "{"
        + ", ".join(f"{json.dumps(key)}: {{{{ ({value}) | tojson }}}}" for key, value in facts.items())
        + "}"
    )
