"""DNS queries from resolvers: dnstap messages over Frame Streams.

A thread reads all connections (:mod:`.receiver`), takes frames out of their streams
(:mod:`.frame_stream`), reads the messages in them (:mod:`.message`) and matches responses to
queries (:mod:`.exchanges`). Names are learned from answers at once; the queries become rows of
``dns_queries`` in a second thread (:mod:`.rows`), which may wait for ClickHouse.
"""

from exporter.receive.dnstap.receiver import DnstapReceiver

__all__ = ["DnstapReceiver"]
