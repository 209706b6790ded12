"""Alerts as Alertmanager and Prometheus post them, brought to one form.

Two bodies are known: Alertmanager's webhook, version 4 (`webhook_config` in its documentation),
and the ``postableAlerts`` of its API v2, which Prometheus sends to every Alertmanager it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
)

_FNV_OFFSET: Final = 14695981039346656037
_FNV_PRIME: Final = 1099511628211
_SEPARATOR: Final = b"\xff"

#: Alerts in one body; Alertmanager sends a group, Prometheus at most 256.
MAX_ALERTS: Final = 5_000

#: Characters of one alert. Longer labels are refused, as they are its identity; of annotations what
#: is beyond is cut off, and a longer link is left out.
MAX_LABELS_TEXT: Final = 8_192
MAX_ANNOTATIONS_TEXT: Final = 16_384
MAX_URL: Final = 8_192


@dataclass(frozen=True, slots=True)
class Observation:
    """What one post says about one alert at ``seen_at`` (all times UTC).

    ``ends_at`` is the end of a resolved alert; of a firing one, the time up to which the sender
    vouches for it, or ``None`` where it does not say.
    """

    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime | None
    resolved: bool
    generator_url: str
    source: Literal["prometheus", "webhook"]
    seen_at: datetime


class BodyError(Exception):
    """A body that is not what the endpoint takes; the text says why.

    ``sound`` is what its other alerts say, where the fault is that of single ones.
    """

    def __init__(self, text: str, sound: Sequence[Observation] = ()) -> None:
        super().__init__(text)
        self.sound = sound


def _short(labels: dict[str, str]) -> dict[str, str]:
    if sum(len(name) + len(value) for name, value in labels.items()) > MAX_LABELS_TEXT:
        raise ValueError(f"more than {MAX_LABELS_TEXT} characters")
    return labels


def _cut(annotations: dict[str, str]) -> dict[str, str]:
    room = MAX_ANNOTATIONS_TEXT
    kept = {}
    for name, text in annotations.items():
        if room <= len(name):
            break
        kept[name] = text[: room - len(name)]
        room -= len(name) + len(kept[name])
    return kept


#: Later ones are nobody's, and the table has no room for them.
_Time = Annotated[AwareDatetime, Field(lt=datetime(2200, 1, 1, tzinfo=UTC))]


class _Alert(BaseModel):
    labels: Annotated[dict[str, str], Field(min_length=1, max_length=128), AfterValidator(_short)]
    annotations: Annotated[dict[str, str], Field(max_length=128), AfterValidator(_cut)] = {}
    startsAt: _Time | None = None  # noqa: N815 - the name in the body
    endsAt: _Time | None = None  # noqa: N815
    generatorURL: str = ""  # noqa: N815


class _NotifiedAlert(_Alert):
    status: Literal["firing", "resolved"]
    fingerprint: str = Field("", pattern=r"^([0-9a-f]{16})?$")


class _Webhook(BaseModel):
    version: Literal["4"]
    alerts: list[_NotifiedAlert] = Field(max_length=MAX_ALERTS)


_POSTED: Final = TypeAdapter(Annotated[list[_Alert], Field(max_length=MAX_ALERTS)])
_DOCUMENT: Final = TypeAdapter[Any](Any)


def fingerprint(labels: dict[str, str]) -> str:
    """The name that Alertmanager gives to a label set: FNV-1a, 64 bits, over the sorted labels
    (``LabelSet.Fingerprint`` of prometheus/common), as 16 hexadecimal digits."""
    value = _FNV_OFFSET
    for name in sorted(labels):
        for part in (name.encode(), _SEPARATOR, labels[name].encode(), _SEPARATOR):
            for byte in part:
                value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def from_webhook(body: bytes, now: datetime) -> list[Observation]:
    """The alerts of a notification; each has a status of its own, whatever the group's is.

    Raises:
        BodyError: it is not version 4 of the webhook.
    """
    try:
        return _notified(_Webhook.model_validate_json(body), now)
    except ValidationError as error:
        alerts = _sound_alerts(body, error, "alerts")
        sound = _notified(_Webhook.model_validate({"version": "4", "alerts": alerts}), now)
        raise BodyError(_first_fault(error), sound) from error


def _notified(webhook: _Webhook, now: datetime) -> list[Observation]:
    return [
        _observation(
            alert,
            now,
            source="webhook",
            resolved=alert.status == "resolved",
            given_fingerprint=alert.fingerprint,
        )
        for alert in webhook.alerts
    ]


def from_prometheus(body: bytes, now: datetime) -> list[Observation]:
    """The alerts that Prometheus tells an Alertmanager; resolved are those that have ended.

    Raises:
        BodyError: it is not a list of postable alerts.
    """
    try:
        return _posted(_POSTED.validate_json(body), now)
    except ValidationError as error:
        sound = _posted(_POSTED.validate_python(_sound_alerts(body, error)), now)
        raise BodyError(_first_fault(error), sound) from error


def _posted(alerts: list[_Alert], now: datetime) -> list[Observation]:
    return [
        _observation(
            alert,
            now,
            source="prometheus",
            resolved=alert.endsAt is not None and _UNSET < alert.endsAt <= now,
        )
        for alert in alerts
    ]


def _sound_alerts(body: bytes, error: ValidationError, *place: str) -> list[Any]:
    """The alerts at ``place`` of ``body`` that ``error`` is not about; none if it is about more."""
    faulty = set()
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        where = fault["loc"]
        if where[: len(place)] != place or len(where) == len(place):
            return []
        faulty.add(where[len(place)])
    document = _DOCUMENT.validate_json(body)
    for name in place:
        document = document[name]
    return [alert for number, alert in enumerate(document) if number not in faulty]


#: Go's zero time, year 1, stands for "not ended" in a firing alert.
_UNSET: Final = datetime(1971, 1, 1, tzinfo=UTC)


def _observation(
    alert: _Alert,
    now: datetime,
    *,
    source: Literal["prometheus", "webhook"],
    resolved: bool,
    given_fingerprint: str = "",
) -> Observation:
    labels = {name: value for name, value in alert.labels.items() if value}
    starts = alert.startsAt if alert.startsAt and alert.startsAt > _UNSET else now
    ends = alert.endsAt if alert.endsAt and alert.endsAt > _UNSET else None
    if resolved:
        ends = max(ends or now, starts)
    return Observation(
        fingerprint=given_fingerprint or fingerprint(labels),
        labels=labels,
        annotations=alert.annotations,
        starts_at=_milliseconds(starts),
        ends_at=_milliseconds(ends) if ends else None,
        resolved=resolved,
        generator_url=alert.generatorURL if len(alert.generatorURL) <= MAX_URL else "",
        source=source,
        seen_at=_milliseconds(now),
    )


def _milliseconds(time: datetime) -> datetime:
    """``time`` in UTC, as exact as it is stored."""
    utc = time.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "body"
    return f"{place}: {fault['msg']}"
