"""Role and owner of hosts and devices, by whatever a key calls them."""

from __future__ import annotations

#: Dimensions whose keys are hosts or devices.
OWNED = ("src_addr", "dst_addr", "src_host", "dst_host", "device", "device_addr")


def owners(condition: str = "1") -> str:
    """``subject`` (address or name as toString gives it), ``owned_by`` (role, owner): a subquery.

    Reads nothing unless the constant ``condition`` holds. A host's own role says more than that of
    the agent on it, which is ``host``.
    """
    return f"""\
  SELECT subject, argMin((told_role, told_owner), rank) AS owned_by
  FROM (
    SELECT arrayJoin([toString(addr), name]) AS subject, toString(role) AS told_role,
      toString(owner) AS told_owner, 1 AS rank
    FROM hosts FINAL
    WHERE {condition}
    UNION ALL
    SELECT arrayJoin([toString(device_addr), toString(device)]) AS subject,
      toString(role) AS told_role, ifNull(owner, '') AS told_owner, 2 AS rank
    FROM devices FINAL
    WHERE {condition}
  )
  WHERE subject != '' AND (told_role != '' OR told_owner != '')
  GROUP BY subject"""
