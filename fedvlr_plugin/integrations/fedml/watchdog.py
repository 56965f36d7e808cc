"""Keeps a GRPC server going when clients die: FedML itself waits for ever, or fails when it sends to them.

In the server's process only, FedML's sender is wrapped. A client that cannot be reached, whose port has closed, or
that takes longer than `fedvlr_round_timeout` seconds is answered for by the server itself with an empty upload, which
the aggregator leaves out and counts as `lost`; after the last round with "finished". Its own upload, when it comes at last, is counted as `stale` and goes no
further; the client is still waited for in the round that is open by then. Needs FedML at import.
"""

from __future__ import annotations

import csv
import pickle
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import grpc
import torch
from fedml.core.distributed.communication.grpc.grpc_comm_manager import GRPCCommManager
from fedml.core.distributed.communication.message import Message as FedMLMessage
from fedml.cross_silo.server.message_define import MyMessage

from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
from fedvlr_plugin.integrations.fedml.messages import ROUND, lost_upload
from fedvlr_plugin.integrations.fedml.options import option, text
from fedvlr_plugin.integrations.fedml.subprocesses import STARTED

EVERY = 1.0
OWN = "fedvlr_own"


class Lifeline:
    """Who still owes an upload, and since when."""

    def __init__(self, addresses: dict[int, tuple[str, int]], aggregator: FedVLRServerAggregator, most: float) -> None:
        self.addresses, self.aggregator, self.most = addresses, aggregator, most
        self.waiting: dict[int, float] = {}
        self.leaving: dict[int, float] = {}
        self.lock = threading.Lock()
        self.manager: GRPCCommManager | None = None
        self.token = secrets.token_hex(16)

    def sent(self, manager: GRPCCommManager, client: int, last: bool = False) -> None:
        """A broadcast is on its way to a client; the last one is answered by "finished", not by an upload."""
        with self.lock:
            self.manager = manager
            (self.leaving if last else self.waiting)[client] = time.monotonic()

    def wanted(self, client: int, upload: object) -> bool:
        """Whether a client's upload goes on to FedML; one of an earlier round, or after the time, is counted as stale.

        FedML takes whatever a client sends for its answer to the open round, and the answer itself then for nothing.
        """
        number = upload.get(ROUND) if isinstance(upload, Mapping) else None
        stale = isinstance(number, torch.Tensor) and number.numel() == 1 and int(number) != self.aggregator.round
        if not stale and self.answered(client):
            return True
        self.aggregator.left_out["stale"] += 1
        return False

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
        message.add_params(OWN, self.token)
        self.manager.grpc_servicer.message_q.put(pickle.dumps(message))

    def left(self, client: int) -> bool:
        """Whether the client was waited for at the end, and is not any more."""
        with self.lock:
            return self.leaving.pop(client, None) is not None

    def let_go(self, client: int) -> None:
        """Tells the server's queue that a client that is gone has finished, so that the server can end; once."""
        if not self.left(client) or self.manager is None:
            return
        message = FedMLMessage(MyMessage.MSG_TYPE_C2S_CLIENT_STATUS, client, 0)
        message.add_params(MyMessage.MSG_ARG_KEY_CLIENT_STATUS, "FINISHED")
        message.add_params(MyMessage.MSG_ARG_KEY_CLIENT_OS, "Linux")
        message.add_params(OWN, self.token)
        self.manager.grpc_servicer.message_q.put(pickle.dumps(message))

    def watch(self) -> None:
        """Looks at every silent client's port, again and again."""
        while True:
            time.sleep(EVERY)
            with self.lock:
                silent, leaving = dict(self.waiting), dict(self.leaving)
            for client, since in (silent | leaving).items():
                if time.monotonic() - since <= self.most and _open(self.addresses[client]):
                    continue
                if client in silent:
                    self.give_up(client)
                else:
                    self.let_go(client)


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
        if message.get_type() in training:
            if lifeline.manager is None:
                print(STARTED, flush=True)
            lifeline.sent(manager, client, last)
        try:
            plain_send(manager, message)
        except grpc.RpcError:
            if last:
                lifeline.let_go(client)
            else:
                lifeline.give_up(client)

    GRPCCommManager.send_message = send
    from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager

    plain_receive = FedMLServerManager.handle_message_receive_model_from_client

    def receive(manager: FedMLServerManager, message: FedMLMessage) -> None:
        client, upload = int(message.get_sender_id()), message.get(MyMessage.MSG_ARG_KEY_MODEL_PARAMS)
        if message.get(OWN) == lifeline.token or lifeline.wanted(client, upload):  # `give_up` has ticked its own off
            plain_receive(manager, message)

    plain_status = FedMLServerManager.handle_message_client_status_update

    def status(manager: FedMLServerManager, message: FedMLMessage) -> None:
        ended = message.get(MyMessage.MSG_ARG_KEY_CLIENT_STATUS) == FedMLServerManager.RUN_FINISHED_STATUS_FLAG
        if not ended or message.get(OWN) == lifeline.token or lifeline.left(int(message.get_sender_id())):
            plain_status(manager, message)

    FedMLServerManager.handle_message_receive_model_from_client = receive
    FedMLServerManager.handle_message_client_status_update = status
    threading.Thread(target=lifeline.watch, daemon=True, name="fedvlr-lifeline").start()


def _open(address: tuple[str, int]) -> bool:
    """Whether anybody listens there."""
    try:
        with socket.create_connection(address, timeout=2.0):
            return True
    except OSError:
        return False
