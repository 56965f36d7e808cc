"""Keep a GRPC server running when clients fail; FedML alone would wait forever, or fail when it sends to them.

FedML's sender is wrapped in the server's process. If a client cannot be reached, has closed its port, or takes longer
than `fedvlr_round_timeout` seconds, the server puts an empty upload in its place, which the aggregator counts as `lost`;
after the last round it puts "finished". An upload that arrives too late is counted as `stale` and discarded; the server
still waits for that client in the open round. This module imports FedML.
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
    """The clients whose upload the server waits for, and since when.

    Args:
        addresses: host and port by client.
        aggregator: server side.
        most: seconds to wait for an upload at most.
    """

    def __init__(self, addresses: dict[int, tuple[str, int]], aggregator: FedVLRServerAggregator, most: float) -> None:
        self.addresses, self.aggregator, self.most = addresses, aggregator, most
        self.waiting: dict[int, float] = {}
        self.leaving: dict[int, float] = {}
        self.lock = threading.Lock()
        self.manager: GRPCCommManager | None = None
        self.token = secrets.token_hex(16)

    def sent(self, manager: GRPCCommManager, client: int, last: bool = False) -> None:
        """Note that a broadcast was sent to a client; the answer to the last one is "finished", not an upload."""
        with self.lock:
            self.manager = manager
            (self.leaving if last else self.waiting)[client] = time.monotonic()

    def wanted(self, client: int, upload: object) -> bool:
        """Return whether FedML may receive a client's upload; one of an earlier round, or a late one, is counted as stale.

        FedML itself would treat an old upload as the answer to the open round, and ignore the actual answer.
        """
        number = upload.get(ROUND) if isinstance(upload, Mapping) else None
        stale = isinstance(number, torch.Tensor) and number.numel() == 1 and int(number) != self.aggregator.round
        if not stale and self.answered(client):
            return True
        self.aggregator.left_out["stale"] += 1
        return False

    def answered(self, client: int) -> bool:
        """Stop waiting for a client's upload; return whether the server was waiting for it."""
        with self.lock:
            return self.waiting.pop(client, None) is not None

    def give_up(self, client: int) -> None:
        """Put an empty upload of a client into the server's queue, if the server waits for it."""
        if not self.answered(client) or self.manager is None:
            return
        message = FedMLMessage(MyMessage.MSG_TYPE_C2S_SEND_MODEL_TO_SERVER, client, 0)
        message.add_params(MyMessage.MSG_ARG_KEY_MODEL_PARAMS, lost_upload(self.aggregator.round, client - 1))
        message.add_params(MyMessage.MSG_ARG_KEY_NUM_SAMPLES, 0)
        message.add_params(OWN, self.token)
        self.manager.grpc_servicer.message_q.put(pickle.dumps(message))

    def left(self, client: int) -> bool:
        """Stop waiting for a client to finish; return whether the server was waiting for it."""
        with self.lock:
            return self.leaving.pop(client, None) is not None

    def let_go(self, client: int) -> None:
        """Put "finished" of a client into the server's queue, if the server waits for it, so that the server can end."""
        if not self.left(client) or self.manager is None:
            return
        message = FedMLMessage(MyMessage.MSG_TYPE_C2S_CLIENT_STATUS, client, 0)
        message.add_params(MyMessage.MSG_ARG_KEY_CLIENT_STATUS, "FINISHED")
        message.add_params(MyMessage.MSG_ARG_KEY_CLIENT_OS, "Linux")
        message.add_params(OWN, self.token)
        self.manager.grpc_servicer.message_q.put(pickle.dumps(message))

    def watch(self) -> None:
        """Test the port of every awaited client each `EVERY` seconds, forever."""
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
    """Wrap FedML's GRPC sender of this process, and start the thread that tests the clients' ports.

    Args:
        args: FedML's options.
        aggregator: server side.
    """
    with Path(text(args, "grpc_ipconfig_path")).open() as file:
        rows = list(csv.DictReader(file))
    addresses = {int(row["eid"]): (row["grpc_server_ip"], int(row["grpc_server_port"])) for row in rows}
    timeout = option(args, "fedvlr_round_timeout")
    watchdog = Lifeline(addresses, aggregator, float(str(timeout)) if timeout is not None else float("inf"))
    plain_send = GRPCCommManager.send_message
    training = (MyMessage.MSG_TYPE_S2C_INIT_CONFIG, MyMessage.MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT)

    def send(manager: GRPCCommManager, message: FedMLMessage) -> None:
        client = int(message.get_receiver_id())
        last = aggregator.round > aggregator.task.spec.training.rounds
        if message.get_type() in training:
            if watchdog.manager is None:
                print(STARTED, flush=True)
            watchdog.sent(manager, client, last)
        try:
            plain_send(manager, message)
        except grpc.RpcError:
            if last:
                watchdog.let_go(client)
            else:
                watchdog.give_up(client)

    GRPCCommManager.send_message = send
    from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager

    plain_receive = FedMLServerManager.handle_message_receive_model_from_client

    def receive(manager: FedMLServerManager, message: FedMLMessage) -> None:
        client, upload = int(message.get_sender_id()), message.get(MyMessage.MSG_ARG_KEY_MODEL_PARAMS)
        if message.get(OWN) == watchdog.token or watchdog.wanted(
            client, upload
        ):  # `give_up` has already stopped waiting for its own
            plain_receive(manager, message)

    plain_status = FedMLServerManager.handle_message_client_status_update

    def status(manager: FedMLServerManager, message: FedMLMessage) -> None:
        ended = message.get(MyMessage.MSG_ARG_KEY_CLIENT_STATUS) == FedMLServerManager.RUN_FINISHED_STATUS_FLAG
        if not ended or message.get(OWN) == watchdog.token or watchdog.left(int(message.get_sender_id())):
            plain_status(manager, message)

    FedMLServerManager.handle_message_receive_model_from_client = receive
    FedMLServerManager.handle_message_client_status_update = status
    threading.Thread(target=watchdog.watch, daemon=True, name="fedvlr-watchdog").start()


def _open(address: tuple[str, int]) -> bool:
    """Return whether a process listens at an address."""
    try:
        with socket.create_connection(address, timeout=2.0):
            return True
    except OSError:
        return False
