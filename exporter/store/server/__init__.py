"""The embedded store: the ClickHouse engine in process, behind ClickHouse's HTTP protocol.

The path of a request: :mod:`.app` (HTTP) asks :mod:`.users` who it is and :mod:`.settings` what
it may set, :mod:`.sql` takes the statement apart, :mod:`.guard` refuses what would reach beyond
the data directory, :mod:`.engine` runs it, :mod:`.formats` joins the blocks of the answer.
"""
