"""All flows that a question is about, whatever the dimension: as one row, and one by one."""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.drawn import ESTIMATED, WEIGHT
from exporter.explore.expressions import TIME, protocol, text
from exporter.explore.hours import with_long_buckets
from exporter.explore.question import Question
from exporter.explore.rollups import rollup_table


def summary_query(question: Question) -> str:
    """One row about all flows that match.

    Where a rollup is read, addresses are counted by whole hours: those that ``hosts_1h`` has, which
    takes a tenth of merging states; only these tell those of some devices. Where drawn flows stand
    for all they are not counted, but null.
    """
    question = with_long_buckets(replace(question, compare=""))
    times = f" * {WEIGHT}" if question.estimated else ""
    unknown = [ESTIMATED] if question.estimated else []
    if question.rollup_if:
        unknown.append("NOT from_rollup")
    sources, destinations = (
        f"if({' AND '.join(unknown)}, NULL, {found})" if question.estimated else found
        for found in ("sum(sources)", "sum(destinations)")
    )
    reads = [
        _summed(
            f"sum(bytes{times})", f"sum(packets{times})", f"sum(1{times})",
            "uniq(src_addr)", "uniq(dst_addr)",
        )
        + f"\n  {question.selected_flows()}"
    ]  # fmt: skip
    if question.rollup_if:
        held = " AND ".join([*question.conditions("time"), "from_rollup"])
        reads.append(
            _summed("sum(bytes)", "sum(packets)", "sum(flows)", "0", "0")
            + f"\n  FROM {rollup_table(question)}\n  WHERE {held}"
        )
        sent, received = (f"uniqIf(addr, flows_{way} > 0)" for way in ("sent", "received"))
        of_all = [*question.conditions("time", device=False), "from_rollup"]
        if question.device:
            of_all.append(question.any_device)
            merged = (f"uniqCombinedMerge(12)(unique_{side}_addr)" for side in ("src", "dst"))
            of_some = f"{held} AND NOT {question.any_device}"
            reads.append(
                _summed("0", "0", "0", *merged)
                + f"\n  FROM flows_1h\n  WHERE {_whole_hours(of_some)}"
            )
        reads.append(
            _summed("0", "0", "0", sent, received)
            + f"\n  FROM hosts_1h\n  WHERE {_whole_hours(' AND '.join(of_all))}"
        )
    union = "\n  UNION ALL\n  ".join(reads)
    return f"""\
WITH
{question.constants_list(grouped=False)}
SELECT
  sum(octets) * 8 / {question.seconds} AS "Bits/s",
  sum(frames) / {question.seconds} AS "Packets/s",
  sum(records) AS "Flows",
  {sources} AS "Sources",
  {destinations} AS "Destinations",
  sum(octets) / greatest(sum(frames), 1) AS "Bytes per packet"
FROM (
  {union}
)
{question.settings}"""


def _whole_hours(condition: str) -> str:
    """A condition of the range, from the hour on that it begins in."""
    return condition.replace("range_start", "toStartOfHour(range_start)")


def _summed(octets: str, frames: str, records: str, sources: str, destinations: str) -> str:
    return (
        f"SELECT toFloat64({octets}) AS octets, toFloat64({frames}) AS frames,\n"
        f"    toFloat64({records}) AS records, toFloat64({sources}) AS sources,"
        f" toFloat64({destinations}) AS destinations"
    )


def raw_flows_query(question: Question, limit: int) -> str:
    """The latest flows that match, one row each.

    Their oldest time is found first, so that all columns are read of few rows only.
    """
    question = replace(question, rollup_if="", estimated="", compare="")
    return f"""\
WITH
{question.constants_list()},
  selected AS (
        SELECT *
        {question.selected_flows()}
  )
SELECT
  {TIME} AS "Received",
  time_flow_start AS "Start",
  time_flow_end AS "End",
  toString(device) AS "Device",
  {text("src_addr")} AS "Source",
  toString(src_host) AS "Source host",
  src_port AS "Source port",
  {text("dst_addr")} AS "Destination",
  toString(dst_host) AS "Destination host",
  dst_port AS "Destination port",
  {protocol("proto")} AS "Protocol",
  toFloat64(bytes) AS "Bytes",
  toFloat64(packets) AS "Packets",
  src_as AS "Source AS",
  dst_as AS "Destination AS",
  in_if AS "In",
  out_if AS "Out",
  tcp_flags AS "TCP flags",
  sampling_rate AS "Sampled 1 in",
  toString(source) AS "From"
FROM selected
WHERE {TIME} >= (
  SELECT min({TIME}) FROM (SELECT {TIME} FROM selected ORDER BY {TIME} DESC LIMIT {limit})
)
ORDER BY {TIME} DESC
LIMIT {limit}
{question.settings}"""
