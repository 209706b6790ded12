"""Pipeline: whether every flow that devices send becomes a row and a count."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from .parts import (
    RED,
    YELLOW,
    finish,
    promql,
    start,
    stat_panel,
    thresholds,
    time_series,
)

UID = "flow-pipeline"


def rate(metric: str, by: str = "") -> str:
    """PromQL: per second, summed over all collectors."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}[$__rate_interval]))"


def or_zero(*expressions: str) -> str:
    """PromQL: the sum of these, each 0 where it has no series yet."""
    return " + ".join(f"({expression} or vector(0))" for expression in expressions)


#: PromQL: devices that reported within five minutes.
REPORTING = "count(sum by (device) (increase(flow_device_flows_total[5m])) > 0) or vector(0)"

#: PromQL: what never became a row, per second.
LOST = or_zero(
    rate("flow_exporter_receive_kernel_drops_total"),
    rate("flow_exporter_sequence_lost_total"),
    rate("flow_exporter_waiting_dropped_total"),
    rate("flow_exporter_insert_refused_rows_total"),
    "-" + rate("flow_exporter_quarantined_rows_total"),
    rate("flow_exporter_quarantine_dropped_rows_total"),
    rate("flow_exporter_spool_dropped_rows_total"),
    rate("flow_exporter_insert_lost_rows_total"),
)


def _graph(
    title: str,
    description: str,
    unit: str,
    *queries: tuple[str, str],
    stacked: bool = False,
    below_zero: bool = False,
) -> timeseries.Panel:
    targets = [
        promql(expression, legend, ref_id=chr(ord("A") + index))
        for index, (expression, legend) in enumerate(queries)
    ]
    panel = time_series(title, description, unit, targets, size=(8, 8), stacked=stacked)
    return panel.min(None) if below_zero else panel  # type: ignore[arg-type]


def _quantiles(metric: str) -> Sequence[tuple[str, str]]:
    buckets = f"sum by (le) (rate({metric}_bucket[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {buckets})", words) for q, words in _QUANTILES]


_QUANTILES = ((0.5, "median"), (0.95, "95th percentile"), (0.99, "99th percentile"))


def _numbers(made: builders.Dashboard) -> builders.Dashboard:
    return (
        made.with_panel(
            stat_panel(
                "Received",
                "UDP datagrams received per second.",
                "pps",
                [promql(rate("flow_exporter_receive_packets_total"), "received")],
                graph=True,
            )
        )
        .with_panel(
            stat_panel(
                "Stored",
                "Flows that ClickHouse has taken per second.",
                "cps",
                [promql(rate("flow_exporter_insert_rows_total"), "stored")],
                graph=True,
            )
        )
        .with_panel(
            stat_panel(
                "Collectors not ready",
                "Collectors that do not take in flows or do not store them, as /-/ready tells.",
                "none",
                [promql("sum(1 - flow_exporter_ready)", "not ready")],
                steps=thresholds((1, RED)),
                empty="no collector",
            )
        )
        .with_panel(
            stat_panel(
                "Lost",
                "Datagrams and flows per second that never became rows. Should be zero.",
                "cps",
                [promql(LOST, "lost")],
                steps=thresholds((0.001, YELLOW), (10, RED)),
            )
        )
        .with_panel(
            stat_panel(
                "Waiting for insert",
                "Flows in memory and in the spool that wait for their insert. It grows while"
                " ClickHouse is away.",
                "short",
                [
                    promql(
                        "sum(flow_exporter_insert_queue_rows + flow_exporter_spool_rows)", "waiting"
                    )
                ],
                steps=thresholds((1_000_000, YELLOW), (1_500_000, RED), base="text"),
            )
        )
        .with_panel(
            stat_panel(
                "Last insert",
                "Time since the last successful insert of the collector that waits longest.",
                "s",
                [
                    promql(
                        "max(time() - (flow_exporter_insert_last_success_timestamp_seconds > 0))",
                        "ago",
                    )
                ],
                steps=thresholds((60, YELLOW), (300, RED)),
                empty="never",
            )
        )
    )


#: Graphs in rows that ask nothing until they are opened; the others are always seen.
_ROWS = {
    "Devices": (
        "Clock skew",
        "Flows with something unknown",
        "Flows by device",
        "Flows by protocol of the record",
    ),
    "Storing": (
        "Flows stored",
        "Time of an insert",
        "Flows of an insert",
        "Failed inserts",
        "Spool",
        "Age of the spool",
        "Through the spool",
    ),
    "Policies and counters": (
        "Time of policies' evaluation",
        "Keys of policies",
        "Trouble inside",
        "Label sets of traffic counters",
        "Time of the stages",
    ),
}


def _graphs() -> Sequence[timeseries.Panel]:
    return (
        _graph(
            "Datagrams by listener",
            "UDP datagrams received by each listening address and port.",
            "pps",
            (rate("flow_exporter_receive_packets_total", "listener"), "{{listener}}"),
        ),
        _graph(
            "Losses at the socket",
            "Datagrams dropped by the kernel since the socket's buffer was full. Raise"
            " receive.socket_buffer_bytes, or start another collector, where it is not zero.",
            "pps",
            (rate("flow_exporter_receive_kernel_drops_total", "listener"), "{{listener}} dropped"),
        ),
        _graph(
            "Missing by sequence number",
            "What devices sent and never came: datagrams of NetFlow v9 and sFlow, records of"
            " NetFlow v5 and IPFIX. Restarts and late datagrams are not counted.",
            "cps",
            (rate("flow_exporter_sequence_lost_total", "device, source"), "{{device}} {{source}}"),
        ),
        _graph(
            "Faults in what devices send",
            "Errors of decoding per second by device and reason; all else of the datagram is"
            " still decoded.",
            "cps",
            (rate("flow_exporter_decode_errors_total", "device, reason"), "{{device}}: {{reason}}"),
        ),
        _graph(
            "Waiting for templates",
            "Sets of records that wait for their template, and sets per second dropped before it"
            " came. Devices repeat templates every few minutes.",
            "short",
            (
                "sum by (device) (flow_exporter_waiting_sets)",
                "{{device}} waiting",
            ),
            (rate("flow_exporter_waiting_dropped_total", "device"), "{{device}} dropped/s"),
        ),
        _graph(
            "Templates",
            "Templates in force by device. A number that grows without end is a fault of the"
            " device.",
            "none",
            ("sum by (device) (flow_exporter_templates)", "{{device}}"),
        ),
        _graph(
            "Clock skew",
            "How far each device's clock is ahead of ours (negative: behind).",
            "s",
            ("max by (device) (flow_exporter_clock_skew_seconds)", "{{device}}"),
            below_zero=True,
        ),
        _graph(
            "Flows with something unknown",
            "Flow records whose sampling rate nothing tells (they count as 1 in 1), and flows whose"
            " times made no sense and became the time of reception.",
            "cps",
            (rate("flow_exporter_unknown_sampling_total", "device"), "{{device}}: sampling"),
            (rate("flow_exporter_times_replaced_total", "device"), "{{device}}: times"),
        ),
        _graph(
            "Time of the stages",
            "Share of time spent in each stage of the pipeline; write mostly waits for room in the"
            " insert queue. Near 1, that stage is the limit. Reading waits while the decoder holds"
            " all buffers.",
            "percentunit",
            (rate("flow_exporter_pipeline_stage_seconds_total", "stage"), "{{stage}}"),
            (rate("flow_exporter_receive_stalled_seconds_total"), "reading waits"),
        ),
        _graph(
            "Flows by device",
            "Flow records that each device reports per second.",
            "cps",
            (rate("flow_device_flows_total", "device"), "{{device}}"),
            stacked=True,
        ),
        _graph(
            "Flows by protocol of the record",
            "Flow records per second by NetFlow v5, v9, IPFIX, sFlow.",
            "cps",
            (rate("flow_device_flows_total", "source"), "{{source}}"),
            stacked=True,
        ),
        _graph(
            "Flows stored",
            "Flows that ClickHouse has taken, and those that it refused or that were given up.",
            "cps",
            (rate("flow_exporter_insert_rows_total"), "stored"),
            (rate("flow_exporter_insert_refused_rows_total", "reason"), "refused: {{reason}}"),
            (rate("flow_exporter_insert_lost_rows_total"), "lost at stop"),
        ),
        _graph(
            "Spool",
            "Size of the inserts that wait on disk while ClickHouse does not take them, and the"
            " size beyond which the oldest are dropped. Quarantine holds what ClickHouse refuses.",
            "decbytes",
            ("sum by (instance) (flow_exporter_spool_bytes)", "{{instance}}"),
            ("sum by (instance) (flow_exporter_spool_bytes_limit > 0)", "{{instance}} limit"),
            ("sum by (instance) (flow_exporter_quarantine_bytes)", "{{instance}} quarantine"),
        ),
        _graph(
            "Age of the spool",
            "Age of the oldest insert in the spool. ClickHouse lacks flows since then.",
            "s",
            ("max by (instance) (flow_exporter_spool_oldest_age_seconds)", "{{instance}}"),
        ),
        _graph(
            "Through the spool",
            "Flows written to the spool, replayed from it, and dropped since it was full or they"
            " were too old; refused ones that went to quarantine.",
            "cps",
            (rate("flow_exporter_spool_spooled_rows_total"), "spooled"),
            (rate("flow_exporter_spool_replayed_rows_total"), "replayed"),
            (rate("flow_exporter_spool_dropped_rows_total", "reason"), "dropped: {{reason}}"),
            (rate("flow_exporter_quarantined_rows_total", "reason"), "quarantined: {{reason}}"),
        ),
        _graph(
            "Time of an insert",
            "How long attempts to insert take, failed ones included.",
            "s",
            *_quantiles("flow_exporter_insert_duration_seconds"),
        ),
        _graph(
            "Flows of an insert",
            "Large inserts are cheap ones: ClickHouse merges what is inserted in small parts.",
            "short",
            *_quantiles("flow_exporter_insert_batch_rows"),
        ),
        _graph(
            "Failed inserts",
            "Failed attempts per second by reason, and inserts tried again.",
            "ops",
            (rate("flow_exporter_insert_failures_total", "reason"), "{{reason}}"),
            (rate("flow_exporter_insert_retries_total"), "tried again"),
        ),
        _graph(
            "Time of policies' evaluation",
            "Seconds that the last evaluation of each policy took.",
            "s",
            (
                "max by (policy) (flow_exporter_policy_evaluation_duration_seconds)",
                "{{policy}}",
            ),
        ),
        _graph(
            "Keys of policies",
            "Share of the keys that each policy may follow. At 1, further keys are not watched.",
            "percentunit",
            (
                "max by (policy) (flow_exporter_policy_evaluation_keys"
                " / flow_exporter_policy_evaluation_keys_limit)",
                "{{policy}}",
            ),
        ),
        _graph(
            "Trouble inside",
            "Evaluations of policies that failed or were left out, failures to write alert history,"
            " and faults of the exporter itself (see its log), per second.",
            "ops",
            (
                rate("flow_exporter_policy_evaluation_failures_total", "policy, reason"),
                "{{policy}}: {{reason}}",
            ),
            (
                rate("flow_exporter_policy_evaluation_skipped_total", "policy"),
                "{{policy}}: left out",
            ),
            (rate("flow_exporter_alert_history_failures_total"), "alert history"),
            (rate("flow_exporter_pipeline_errors_total", "stage"), "fault in {{stage}}"),
        ),
        _graph(
            "Label sets of traffic counters",
            "Share of each counter's label sets that is in use. At 1, new ones count as other.",
            "percentunit",
            (
                "max by (counter) (flow_exporter_traffic_label_sets"
                " / flow_exporter_traffic_label_sets_limit)",
                "{{counter}}",
            ),
        ),
    )


def dashboard() -> Dashboard:
    """``flow-pipeline``."""
    made = _numbers(
        start(
            UID,
            "Flow Pipeline",
            "From datagrams to rows and alerts: rates, losses, queues, times.",
            "now-1h",
        )
    )
    graphs = {str(graph.build().title): graph for graph in _graphs()}
    hidden = {title for titles in _ROWS.values() for title in titles}
    for title, graph in graphs.items():
        if title not in hidden:
            made = made.with_panel(graph)
    for name, titles in _ROWS.items():
        row = builders.Row(name).collapsed(True)
        for title in titles:
            row = row.with_panel(graphs[title])
        made = made.with_row(row)
    return finish(made)
