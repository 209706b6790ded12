"""Flows of eBPF agents over gRPC: ``pbflow.Collector/Send`` of ``exporter/proto/pbflow.proto``.

``records`` turns messages into flow batches, ``server`` listens, ``service`` answers calls and
``stats`` counts.
"""

from exporter.receive.grpc.server import GrpcServer

__all__ = ["GrpcServer"]
