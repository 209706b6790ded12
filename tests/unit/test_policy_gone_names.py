"""Names that the configuration gives no more."""

from __future__ import annotations

from exporter.policies.gone import GoneNames
from exporter.policies.keys import Row


def test_names_that_come_and_go_every_hour_are_not_remembered_for_ever() -> None:
    gone = GoneNames()
    for hour in range(100):
        gone.replace({"src_network": {f"n{hour}", "stays"}}, hour * 3600.0)
    assert len(gone._gone) <= 2
    rows = [Row(n, {"src_network": f"n{n}"}, 1.0) for n in (97, 98, 99)]
    # The first went long before this window: flows that have its name still are another's.
    assert [row.key for row in gone.left_out(rows, 99 * 3600.0 - 300)] == [97, 99]
    assert [row.key for row in gone.left_out(rows, 98 * 3600.0 - 60)] == [99]
