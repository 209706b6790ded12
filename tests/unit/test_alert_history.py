"""One row per alert, however often and by whomever it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exporter.incidents.alert import (
    BodyError,
    Observation,
    fingerprint,
    from_prometheus,
    from_webhook,
)
from exporter.incidents.history import AlertRow, History

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LABELS = {"alertname": "FlowPolicyAbove", "policy": "p", "dst_addr": "10.0.0.1"}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class Told:
    """A history that is told of one alert; times are seconds."""

    def __init__(self) -> None:
        self.history = History()

    def by_prometheus(
        self, now: float, starts: float = 0, ends: float | None = None, value: str = "1"
    ) -> None:
        body = [
            {
                "labels": LABELS,
                "annotations": {"value": value},
                "startsAt": at(starts).isoformat(),
                "endsAt": at(now + 240 if ends is None else ends).isoformat(),
                "generatorURL": "http://prometheus/graph",
            }
        ]
        for seen in from_prometheus(json.dumps(body).encode(), at(now)):
            assert self.history.observe(seen)
        self.history.expire(at(now))

    def by_webhook(self, now: float, starts: float = 0, ends: float | None = None) -> None:
        alert = {
            "status": "firing" if ends is None else "resolved",
            "labels": LABELS,
            "annotations": {},
            "startsAt": at(starts).isoformat(),
            "endsAt": "0001-01-01T00:00:00Z" if ends is None else at(ends).isoformat(),
            "generatorURL": "",
            "fingerprint": fingerprint(LABELS),
        }
        # The group is firing as long as any of its alerts is.
        body = {"version": "4", "status": "firing", "alerts": [alert]}
        for seen in from_webhook(json.dumps(body).encode(), at(now)):
            assert self.history.observe(seen)
        self.history.expire(at(now))

    def rows(self) -> list[tuple[float, float | None]]:
        """Start and end of each row, in seconds."""
        return [
            (
                (row.starts_at - T0).total_seconds(),
                None if row.ends_at is None else (row.ends_at - T0).total_seconds(),
            )
            for row in self.history
        ]

    def written(self, now: float) -> list[AlertRow]:
        """What would be written now, taken as written."""
        rows = self.history.unwritten()
        for row in rows:
            row.dirty = False
            row.written_at = at(now)
        return rows


@pytest.fixture
def told() -> Told:
    return Told()


def test_an_alert_told_again_every_minute_is_one_row_written_once(told: Told) -> None:
    writes = 0
    for minute in range(5):
        told.by_prometheus(now=60 * minute, value=str(minute))
        writes += len(told.written(60 * minute))
    assert told.rows() == [(0, None)]
    assert writes == 1


def test_a_long_alert_is_written_again_now_and_then_with_its_latest_value(told: Told) -> None:
    told.by_prometheus(now=0, value="1")
    told.written(0)
    told.by_prometheus(now=300, value="7.5")
    (row,) = told.written(300)
    assert row.value == 7.5
    assert row.starts_at == T0


def test_the_end_is_recorded_once_and_repeats_of_it_change_nothing(told: Told) -> None:
    told.by_prometheus(now=0)
    told.by_prometheus(now=600, ends=590)
    assert told.rows() == [(0, 590)]
    told.written(600)
    told.by_prometheus(now=660, ends=590)
    told.by_webhook(now=670, ends=590)
    assert told.written(670) == []


def test_a_future_end_means_firing(told: Told) -> None:
    told.by_prometheus(now=0, ends=240)
    assert told.rows() == [(0, None)]


def test_replicas_that_saw_the_start_seconds_apart_make_one_row(told: Told) -> None:
    told.by_prometheus(now=0, starts=0)
    told.by_prometheus(now=7, starts=7)
    told.by_webhook(now=30, starts=7)
    told.by_prometheus(now=600, starts=7, ends=600)
    assert told.rows() == [(0, 600)]


def test_a_replica_that_saw_the_start_after_the_other_saw_the_end_makes_no_row(told: Told) -> None:
    told.by_prometheus(now=0, starts=0)
    told.by_prometheus(now=5, starts=0, ends=3)
    told.by_prometheus(now=8, starts=7)
    assert told.rows() == [(0, None)]


def test_an_alert_that_was_over_before_and_is_told_late_is_a_row_of_its_own(told: Told) -> None:
    told.by_prometheus(now=1200, starts=1200)
    told.by_webhook(now=1300, starts=0, ends=600)
    assert told.rows() == [(1200, None), (0, 600)]


def test_a_start_within_an_open_alert_is_the_same_alert(told: Told) -> None:
    told.by_prometheus(now=0, starts=0)
    told.by_prometheus(now=200, starts=180)  # a Prometheus that restarted begins to count anew
    assert told.rows() == [(0, None)]


def test_an_alert_that_comes_back_is_a_row_of_its_own(told: Told) -> None:
    told.by_prometheus(now=0, starts=0)
    told.by_prometheus(now=600, starts=0, ends=600)
    told.by_prometheus(now=1200, starts=1200)
    assert told.rows() == [(0, 600), (1200, None)]


def test_an_end_is_the_latest_state_though_the_clock_was_set_back_meanwhile(told: Told) -> None:
    told.by_prometheus(now=0)
    told.by_prometheus(now=7200)
    (firing,) = told.written(7200)
    last = firing.updated_at
    told.by_prometheus(now=60, ends=30)  # two hours back
    (ended,) = told.written(60)
    assert ended.resolved
    assert ended.updated_at > last  # of two rows the table keeps that one


def test_what_nobody_repeats_ends_for_good_though_the_clock_was_set_back(told: Told) -> None:
    told.by_prometheus(now=0, ends=50)
    told.by_prometheus(now=7200, ends=50 + 7200)
    (firing,) = told.written(7200)
    firing.valid_until, last = at(50), firing.updated_at
    told.history.expire(at(60))
    (ended,) = told.written(60)
    assert ended.resolved
    assert ended.updated_at > last


def test_an_end_seen_before_the_start_makes_the_whole_row(told: Told) -> None:
    told.by_webhook(now=700, starts=0, ends=650)
    assert told.rows() == [(0, 650)]


def test_a_notification_that_waited_does_not_reopen_an_ended_alert(told: Told) -> None:
    told.by_prometheus(now=0)
    told.by_prometheus(now=20, ends=20)
    told.by_webhook(now=30)
    assert told.rows() == [(0, 20)]


def test_a_replica_that_still_sees_it_reopens_it(told: Told) -> None:
    told.by_prometheus(now=0)
    told.by_prometheus(now=600, ends=600)
    assert told.written(600)
    told.by_prometheus(now=610, starts=7, value="3")
    assert told.rows() == [(0, None)]
    (reopened,) = told.written(610)
    assert reopened.value == 3


def test_an_alert_that_nobody_vouches_for_any_more_ends(told: Told) -> None:
    told.by_prometheus(now=0)
    told.history.expire(at(239))
    assert told.rows() == [(0, None)]
    told.history.expire(at(241))
    assert told.rows() == [(0, 240)]


def test_one_that_only_notifications_tell_of_ends_a_day_after_the_last(told: Told) -> None:
    told.by_webhook(now=0)
    told.by_webhook(now=4 * 3600)
    told.history.expire(at(29 * 3600))
    assert told.rows() == [(0, None)]
    told.history.expire(at(31 * 3600))
    assert told.rows() == [(0, 30 * 3600)]


def test_one_that_prometheus_tells_too_ends_when_prometheus_stops_though_it_is_notified(
    told: Told,
) -> None:
    told.by_webhook(now=0)
    told.by_prometheus(now=60)
    told.by_webhook(now=120)
    told.history.expire(at(301))
    assert told.rows() == [(0, 300)]


def test_each_alert_of_a_notification_has_its_own_status(told: Told) -> None:
    told.by_webhook(now=0)
    told.by_webhook(now=60, ends=50)  # the group's status is still firing
    assert told.rows() == [(0, 50)]


def test_after_a_restart_the_table_is_taken_up_where_it_was(told: Told) -> None:
    told.by_prometheus(now=0)
    rows = [replace(row, dirty=True, written_at=None) for row in told.written(0)]
    again = Told()
    again.history.restore(rows, at(100))
    assert again.written(100) == []
    again.by_prometheus(now=110, starts=7)
    assert again.rows() == [(0, None)]
    assert again.written(110) == []
    again.by_prometheus(now=200, starts=7, ends=190)
    assert again.rows() == [(0, 190)]


def test_what_ended_long_ago_is_forgotten_once_written(told: Told) -> None:
    told.by_prometheus(now=0)
    told.by_prometheus(now=60, ends=60)
    told.history.expire(at(86_400))
    assert len(told.history) == 1
    told.written(86_400)
    told.history.expire(at(86_400 * 2))
    assert len(told.history) == 0


def test_beyond_so_many_alerts_new_ones_are_refused_and_known_ones_go_on() -> None:
    history = History()
    room = 20_000

    def tell(number: int, now: float, *, resolved: bool = False) -> bool:
        labels = {"alertname": "A", "n": str(number)}
        ends = at(now + (0 if resolved else 240))
        return history.observe(
            Observation(str(number), labels, {}, T0, ends, resolved, "", "prometheus", at(now))
        )

    assert all(tell(number, 0) for number in range(room))
    assert not tell(room, 0)
    assert tell(0, 60, resolved=True)
    assert len(history) == room
    assert sum(row.resolved for row in history) == 1
    for row in history.unwritten():
        row.dirty = False
    history.expire(at(86_400))
    history.expire(at(86_400 * 2))
    for row in history.unwritten():
        row.dirty = False
    history.expire(at(86_400 * 3))
    assert len(history) == 0
    assert tell(room, 86_400 * 3)


def test_what_ended_without_saying_when_ended_now_and_never_before_it_began() -> None:
    alert = {"status": "resolved", "labels": LABELS, "annotations": {},
             "startsAt": T0.isoformat(), "endsAt": "0001-01-01T00:00:00Z"}  # fmt: skip
    body = json.dumps({"version": "4", "alerts": [alert]}).encode()
    (seen,) = from_webhook(body, at(30))
    assert (seen.resolved, seen.ends_at) == (True, at(30))
    (seen,) = from_webhook(body, at(-30))
    assert seen.ends_at == T0


def test_times_are_as_exact_as_they_are_stored() -> None:
    body = [{"labels": LABELS, "startsAt": "2026-03-01T13:00:00.123999+01:00"}]
    (seen,) = from_prometheus(json.dumps(body).encode(), T0)
    assert seen.starts_at == datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)


def test_empty_labels_are_no_labels() -> None:
    body = [{"labels": LABELS | {"dst_host": ""}, "startsAt": T0.isoformat()}]
    (seen,) = from_prometheus(json.dumps(body).encode(), T0)
    assert seen.fingerprint == fingerprint(LABELS)
    assert seen.labels == LABELS


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"version": "3", "alerts": []}, "version"),
        ({"version": "4"}, "alerts"),
        ({"version": "4", "alerts": [{"labels": LABELS}]}, "status"),
        ({"version": "4", "alerts": [{"status": "firing", "labels": {}}]}, "labels"),
        ({"version": "4", "alerts": [{"status": "firing", "labels": {"a": 1}}]}, "labels"),
        (
            {
                "version": "4",
                "alerts": [{"status": "firing", "labels": LABELS, "fingerprint": "'; DROP"}],
            },
            "fingerprint",
        ),
        (
            {
                "version": "4",
                "alerts": [{"status": "firing", "labels": LABELS, "startsAt": "yesterday"}],
            },
            "startsAt",
        ),
        (
            {
                "version": "4",
                "alerts": [
                    {
                        "status": "firing",
                        "labels": LABELS,
                        "startsAt": "9999-12-31T23:59:59-01:00",  # in UTC there is no such time
                    }
                ],
            },
            "startsAt",
        ),
        (
            {"version": "4", "alerts": [{"status": "firing", "labels": {"a": "x" * 8_192}}]},
            "alerts.0.labels: Value error, more than 8192 characters",
        ),
        ([], "object"),
    ],
)
def test_a_foreign_webhook_body_is_refused_with_the_place(body: Any, said: str) -> None:
    with pytest.raises(BodyError, match=said) as refused:
        from_webhook(json.dumps(body).encode(), T0)
    assert refused.value.sound == []


def test_what_is_wrong_with_one_alert_does_not_lose_the_others() -> None:
    good = {"status": "firing", "labels": LABELS}
    for wrong in ({"labels": {"a": "x" * 8_192}}, {"labels": LABELS, "startsAt": "never"}, 1):
        with pytest.raises(BodyError, match=r"^1\b") as refused:
            from_prometheus(json.dumps([good, wrong, good]).encode(), T0)
        assert [seen.labels for seen in refused.value.sound] == [LABELS, LABELS]
        body = {"version": "4", "alerts": [good, wrong]}
        with pytest.raises(BodyError, match=r"^alerts\.1\b") as refused:
            from_webhook(json.dumps(body).encode(), T0)
        assert [seen.labels for seen in refused.value.sound] == [LABELS]
    with pytest.raises(BodyError) as refused:
        from_webhook(json.dumps({"version": "5", "alerts": [good, 1]}).encode(), T0)
    assert refused.value.sound == []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000, b'[{"labels": {}}]', b'[{"labels"']
)
def test_a_foreign_post_of_alerts_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError):
        from_prometheus(body, T0)


def test_what_one_alert_may_keep_is_bounded() -> None:
    body = [
        {
            "labels": LABELS,
            "annotations": {"summary": "short", "description": "x" * 100_000, "more": "y"},
            "generatorURL": "http://prometheus/" + "z" * 100_000,
        }
    ]
    (seen,) = from_prometheus(json.dumps(body).encode(), T0)
    assert seen.labels == LABELS
    assert seen.annotations["summary"] == "short"
    assert 16_000 < sum(len(name + text) for name, text in seen.annotations.items()) <= 16_384
    assert seen.generator_url == "", "half a link leads nowhere"
