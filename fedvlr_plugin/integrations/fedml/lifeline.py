"""Keeps a GRPC server going when clients die: FedML itself waits for ever, or fails when it sends to them.

In the server's process only, FedML's sender is wrapped. A client that cannot be reached, whose port has closed, or
that takes longer than `fedvlr_round_timeout` seconds is answered for by the server itself with an empty upload, which
the aggregator leaves out and counts as `lost`. Needs FedML at import.
"""

from __future__ import annotations

import csv
import pickle
import socket
import threading
import time
from pathlib import Path

import grpc
from fedml.core.distributed.communication.grpc.grpc_comm_manager import GRPCCommManager
from fedml.core.distributed.communication.message import Message as FedMLMessage
from fedml.cross_silo.server.message_define import MyMessage

from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
from fedvlr_plugin.integrations.fedml.messages import lost_upload
from fedvlr_plugin.integrations.fedml.options import option, text

EVERY = 1.0


class Lifeline:
    """Who still owes an upload, and since when."""

    def __init__(self, addresses: dict[int, tuple[str, int]], aggregator: FedVLRServerAggregator, most: float) -> None:
        self.addresses, self.aggregator, self.most = addresses, aggregator, most
        self.waiting: dict[int, float] = {}
        self.lock = threading.Lock()
        self.manager: GRPCCommManager | None = None

    def sent(self, manager: GRPCCommManager, client: int) -> None:
        """A broadcast is on its way to a client."""
        with self.lock:
            self.manager = manager
            self.waiting[client] = time.monotonic()

    def answered(self, client: int) -> bool:
        """Whether the client owed an upload, which has now arrived."""
        with self.lock:
            return self.waiting.pop(client, None) is not None

    def give_up(self, client: int) -> None:
        """Puts an empty upload in the server's own queue in the client's name, once."""
        if not self.answered(client) or self.manager is None:
            return
        message = FedMLMessage(MyMessage.MSG_TYPE_C2S_SEND_MODEL_TO_SERVER, client, 0)
        message.add_params(MyMessage.MSG_ARG_KEY_MODEL_PARAMS, lost_upload(self.aggregator.round, client - 1))
        message.add_params(MyMessage.MSG_ARG_KEY_NUM_SAMPLES, 0)
        self.manager.grpc_servicer.message_q.put(pickle.dumps(message))

    def finished(self, manager: GRPCCommManager, client: int) -> None:
        """Tells the server's queue that a client that is gone has finished, so that the server can end."""
        message = FedMLMessage(MyMessage.MSG_TYPE_C2S_CLIENT_STATUS, client, 0)
        message.add_params(MyMessage.MSG_ARG_KEY_CLIENT_STATUS, "FINISHED")
        message.add_params(MyMessage.MSG_ARG_KEY_CLIENT_OS, "Linux")
        manager.grpc_servicer.message_q.put(pickle.dumps(message))

    def watch(self) -> None:
        """Looks at every silent client's port, again and again."""
        while True:
            time.sleep(EVERY)
            with self.lock:
                silent = dict(self.waiting)
            for client, since in silent.items():
                if time.monotonic() - since > self.most or not _open(self.addresses[client]):
                    self.give_up(client)


def watch_clients(args: object, aggregator: FedVLRServerAggregator) -> None:
    """Wraps FedML's GRPC sender of this process and starts the watch."""
    with Path(text(args, "grpc_ipconfig_path")).open() as file:
        rows = list(csv.DictReader(file))
    addresses = {int(row["eid"]): (row["grpc_server_ip"], int(row["grpc_server_port"])) for row in rows}
    timeout = option(args, "fedvlr_round_timeout")
    lifeline = Lifeline(addresses, aggregator, float(str(timeout)) if timeout is not None else float("inf"))
    plain_send = GRPCCommManager.send_message
    training = (MyMessage.MSG_TYPE_S2C_INIT_CONFIG, MyMessage.MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT)

    def send(manager: GRPCCommManager, message: FedMLMessage) -> None:
        client = int(message.get_receiver_id())
        last = aggregator.round > aggregator.task.spec.training.rounds
        if message.get_type() in training and not last:
            lifeline.sent(manager, client)
        try:
            plain_send(manager, message)
        except grpc.RpcError:
            if last:
                lifeline.finished(manager, client)
            else:
                lifeline.give_up(client)

    GRPCCommManager.send_message = send
    from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager

    plain_receive = FedMLServerManager.handle_message_receive_model_from_client

    def receive(manager: FedMLServerManager, message: FedMLMessage) -> None:
        client = int(message.get_sender_id())
        upload = message.get(MyMessage.MSG_ARG_KEY_MODEL_PARAMS)
        own = "fedvlr.weight" not in upload  # what `give_up` put there has been ticked off already
        if own or lifeline.answered(client):
            plain_receive(manager, message)

    FedMLServerManager.handle_message_receive_model_from_client = receive
    threading.Thread(target=lifeline.watch, daemon=True, name="fedvlr-lifeline").start()


def _open(address: tuple[str, int]) -> bool:
    """Whether anybody listens there."""
    try:
        with socket.create_connection(address, timeout=2.0):
            return True
    except OSError:
        return False
