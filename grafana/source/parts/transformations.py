"""What happens to the answers of a panel's queries before they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.models import dashboard


def merge() -> dashboard.DataTransformerConfig:
    """The tables of all queries as one, joined by what they have in common."""
    return dashboard.DataTransformerConfig(id_val="merge", options={})


def rename(names: Mapping[str, str], hidden: Sequence[str] = ()) -> dashboard.DataTransformerConfig:
    """Columns renamed, in this order, the ``hidden`` ones left out."""
    return dashboard.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {name: index for index, name in enumerate(names)},
            "renameByName": dict(names),
        },
    )


def units_from(ref_id: str, *columns: str) -> dashboard.DataTransformerConfig:
    """Gives these columns, or all numbers, the unit that query ``ref_id`` tells in its only row.

    By name, not by pattern: beside a second query a pattern is held against names with the
    query's in front, such as ``A Before``.
    """
    named = {"id": "byNames", "options": {"mode": "include", "names": list(columns)}}
    return dashboard.DataTransformerConfig(
        id_val="configFromData",
        options={
            "applyTo": named if columns else {"id": "byType", "options": "number"},
            "configRefId": ref_id,
            "mappings": [{"fieldName": "unit", "handlerKey": "unit"}],
        },
    )
