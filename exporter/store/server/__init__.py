"""The embedded store: the ClickHouse engine in process, behind ClickHouse's HTTP protocol.

The path of a request: :mod:`.app` (HTTP) asks :mod:`.users` who it is; :mod:`.statement` reads the
one statement that it brings, taken apart by :mod:`.sql` and :mod:`.clauses`. Its turn come, it is a
:mod:`.job` of :mod:`.execution`: :mod:`.settings` says what it may set, :mod:`.guard` refuses what
would reach beyond the data directory, :mod:`.engine` runs it, as far as :mod:`.engine_config` lets
it, and its answer comes back through a :mod:`.pipe`. :mod:`.serve` starts and ends it all.
"""
