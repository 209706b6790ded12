"""The answer to ``pbflow.Collector/Send``."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn
from urllib.parse import unquote

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from exporter import config
from exporter.address import pack_address
from exporter.batch import FlowBatch, format_address
from exporter.distinct import distinct_addresses
from exporter.logs import RareLog
from exporter.proto import pbflow_pb2 as pb
from exporter.receive.grpc.records import RecordReader, TooManyRecordsError
from exporter.receive.grpc.stats import GrpcStats
from exporter.receive.sources import Offer

log = logging.getLogger(__name__)

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Collector"].full_name
#: A call waits this long for room before it is refused. The agent sends one message after the
#: other, so waiting slows it; the bound keeps calls from piling up.
PATIENCE_SECONDS: Final = 5.0
#: A message is to be there by then: until it is its call is one of those that there may be.
MESSAGE_SECONDS: Final = 30.0

_REPLY: Final = pb.CollectorReply()


class CollectorService:
    """Reads messages and offers their flows to the pipeline. Answers calls in several threads."""

    def __init__(self, devices: Sequence[config.Device], stats: GrpcStats, offer: Offer) -> None:
        self._stats = stats
        self._offer = offer
        self._log = RareLog(log)
        self.configure(devices)

    def configure(self, devices: Sequence[config.Device]) -> None:
        """Use another configuration of the devices from now on."""
        self._reader = RecordReader(devices)
        self._names = {pack_address(d.address): d.name or d.address for d in devices}

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server needs to serve it. Messages come as octets, so that bad ones are ours.

        To a peer a stream of one message is that message, but how long it takes is seen here only.
        """
        send: grpc.RpcMethodHandler[bytes, pb.CollectorReply] = (
            grpc.stream_unary_rpc_method_handler(
                self.send, response_serializer=pb.CollectorReply.SerializeToString
            )
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Send": send})

    def send(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> pb.CollectorReply:
        """Take in the one message; the reply says that its flows are in the pipeline."""
        message = self._only(messages, context)
        self._stats.came(len(message))
        try:
            flows, faults = self._reader.read(
                message, peer_address(context.peer()), time.time_ns() // 1_000_000
            )
        except DecodeError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "malformed", str(error))
        except TooManyRecordsError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "too_many_records", str(error))
        except Exception as error:
            self._log.exception("internal", f"reading the flows of {context.peer()} failed")
            self._refuse(context, grpc.StatusCode.INTERNAL, "internal", str(error))
        for reason, number in faults.items():
            self._stats.fault(reason, number)
            self._log.warning(
                reason, f"{context.peer()}: {reason.replace('_', ' ')} in {number} flows"
            )
        if len(flows) and not self._hand_over(flows):
            self._stats.refused(len(flows))
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"no room for {len(flows)} flows within {PATIENCE_SECONDS:g} s",
            )
        return _REPLY

    def _only(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The message of a call, which ends if that takes too long."""
        timer = threading.Timer(MESSAGE_SECONDS, self._give_up, [context])
        timer.daemon = True
        timer.start()
        try:
            message = next(messages, None)
        finally:
            timer.cancel()
        if message is None:
            self._refuse(
                context, grpc.StatusCode.INVALID_ARGUMENT, "malformed", "a call without a message"
            )
        return message

    def _give_up(self, context: grpc.ServicerContext) -> None:
        self._stats.fault("too_slow")
        self._log.warning(
            "too_slow", f"{context.peer()}: no whole message within {MESSAGE_SECONDS:g} s"
        )
        context.cancel()

    def _hand_over(self, flows: FlowBatch) -> bool:
        if not self._offer(flows, 0.0):
            began = time.monotonic()
            self._stats.waits(1)
            try:
                if not self._offer(flows, PATIENCE_SECONDS):
                    return False
            finally:
                self._stats.waits(-1, time.monotonic() - began)
        codes, agents = distinct_addresses(flows.array("device_addr"))
        for agent, number in zip(agents, np.bincount(codes).tolist(), strict=True):
            name = self._names.get(agent.tobytes())
            label = name or format_address(agent.tobytes())
            self._stats.took(label, number, configured=name is not None)
        return True

    def _refuse(
        self, context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, text: str
    ) -> NoReturn:
        self._stats.fault(reason)
        self._log.warning(reason, f"{context.peer()}: {reason} message: {text}")
        context.abort(code, text)


def peer_address(peer: str) -> bytes:
    """The packed address in gRPC's name of a peer, such as ``ipv4:192.0.2.1:5000``."""
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return bytes(16)
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes(16)
    return pack_address(str(getattr(address, "ipv4_mapped", None) or address))
