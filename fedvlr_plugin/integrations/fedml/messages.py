"""Pack and unpack FedML's messages, ordered dictionaries of tensors, and check uploads.

To a client: the broadcast and the round. To the server: the mean of the client's uploads by the broadcast's names, its
round, the client, its weight (samples, or users if clients have equal weights), and how many of its users' updates were
not finite. With `fedvlr_upload: touched` only item vectors with a gradient are sent, with their item ids: smaller, but
it reveals to the server which items the client trained on.

An upload is not used if it has other tensors than the broadcast, a wrong shape or type, or NaN or infinite values, if it
is the second one of a client, or if it belongs to another round. It is counted by reason, and the round continues with
the others. Uploads within the engines are not messages; they are tested for finite values only
(`engines.per_client`).

`tensor_bytes` is the size of a message's tensors; `on_the_wire` is the size of the pickle that FedML's GRPC sends,
without the overhead of GRPC and TCP (needs FedML).
"""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict
from collections.abc import Mapping

import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.aggregation.uploads import UploadShape

Message = OrderedDict[str, torch.Tensor]
ROUND, CLIENT, WEIGHT, BROKEN = "fedvlr.round", "fedvlr.client", "fedvlr.weight", "fedvlr.broken"
ITEMS, ROWS, LAYERS = "fedvlr.items", "fedvlr.rows", "fedvlr.layers"


def pack_broadcast(broadcast: Broadcast, round: int) -> Message:
    """Create the server's message of a round; tensors are copied."""
    out = OrderedDict((name, value.detach().cpu().clone()) for name, value in broadcast.named().items())
    out[ROUND] = torch.tensor(round)
    return out


def unpack_broadcast(message: Message, device: torch.device, dtype: torch.dtype) -> Broadcast:
    """Invert `pack_broadcast`, without the round.

    Raises:
        ConfigError: the tensors are not those of a broadcast.
    """
    return Broadcast.from_names({name: value.to(device, dtype) for name, value in payload(message).items()})


def payload(message: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Return a message's tensors without round, client, weight and the like."""
    return OrderedDict((name, value) for name, value in message.items() if not name.startswith("fedvlr."))


def pack_upload(
    mean: Mapping[str, torch.Tensor], round: int, client: int, weight: float, broken: int, touched: bool
) -> Message:
    """Create a client's message.

    Args:
        mean: mean upload by the names of the broadcast.
        round: counted from 1.
        client: number of the FedML client.
        weight: of the upload, at least 0.
        broken: number of users whose update was not finite.
        touched: send only item vectors with a gradient.
    """
    tensors = OrderedDict((name, value.detach().cpu()) for name, value in mean.items())
    if touched:
        rows, layers = UploadShape(tensors).flatten(tensors)
        items = rows.any(dim=1).nonzero()[:, 0]
        out = OrderedDict([(ITEMS, items), (ROWS, rows[items]), (LAYERS, layers)])
    else:
        out = OrderedDict((name, value.clone()) for name, value in tensors.items())
    out[ROUND], out[CLIENT] = torch.tensor(round), torch.tensor(client)
    out[WEIGHT], out[BROKEN] = torch.tensor(weight, dtype=torch.float64), torch.tensor(broken)
    return out


def lost_upload(round: int, client: int) -> Message:
    """Create the message that replaces the upload of a client that has failed."""
    return OrderedDict([(ROUND, torch.tensor(round)), (CLIENT, torch.tensor(client))])


class Admission:
    """Reads and checks the messages of one round.

    Reasons besides those of `Intake`: "no message of ours", "lost" (the client has failed), "wrong weight".

    Args:
        broadcast: of the round.
        round: counted from 1.
    """

    def __init__(self, broadcast: Broadcast, round: int) -> None:
        named = broadcast.named()
        self.shape = UploadShape(named)
        self.names = list(named)
        self.intake = Intake(named, round)

    def admit(self, message: object, reasons: Counter[str]) -> tuple[float, OrderedDict[str, torch.Tensor]] | None:
        """Check a message.

        Args:
            message: from a client.
            reasons: number of unusable uploads by reason; increased in place.

        Returns:
            Weight and dense upload; None if the upload is not used. Weight 0 is not counted as a fault.
        """
        checked = self._checked(message, reasons)
        if isinstance(checked, str):
            reasons[checked] += 1
            return None
        return checked if checked[0] > 0 else None

    def _checked(self, message: object, reasons: Counter[str]) -> str | tuple[float, OrderedDict[str, torch.Tensor]]:
        """Return weight and dense upload, or the reason why the upload is not used."""
        if not isinstance(message, Mapping) or not all(isinstance(v, torch.Tensor) for v in message.values()):
            return "no message of ours"
        if any(name not in message or message[name].numel() != 1 for name in (ROUND, CLIENT)):
            return "no message of ours"
        round, client = int(message[ROUND]), int(message[CLIENT])
        if message.keys() == {ROUND, CLIENT} and round == self.intake.round:
            return "lost"
        dense = self._dense(message)
        reason = "wrong shape" if dense is None else self.intake.admit(client, round, dense)
        if dense is None or reason is not None:
            return reason or "wrong shape"
        weight = message.get(WEIGHT)
        if weight is None or weight.numel() != 1 or not 0.0 <= float(weight) < float("inf"):
            return "wrong weight"
        reasons["not finite"] += int(message.get(BROKEN, torch.tensor(0)).sum())
        return float(weight), OrderedDict((name, dense[name]) for name in self.names)

    def _dense(self, message: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor] | None:
        """Return the upload in the shapes of the broadcast; None if item ids and vectors do not fit."""
        plain = payload(message)
        if ITEMS not in message:
            return plain
        items, rows, layers = message[ITEMS], message.get(ROWS), message.get(LAYERS)
        if rows is None or layers is None or plain or items.dtype != torch.int64 or items.dim() != 1:
            return None
        if rows.shape != (len(items), self.shape.row_width) or layers.shape != (self.shape.layer_width,):
            return None
        if len(items) and not (0 <= int(items.min()) and int(items.max()) < self.shape.n_items):
            return None
        if len(items.unique()) != len(items):
            return None
        whole = rows.new_zeros(self.shape.n_items, self.shape.row_width).index_copy(0, items, rows)
        return self.shape.unflatten(whole, layers)


REASONS = ("stale", "duplicate", "unknown client", "wrong names", "wrong shape", "wrong type", "not finite")


class Intake:
    """Checks the uploads of one round.

    Args:
        broadcast: gives the expected names, shapes and types.
        round: the open round.
        clients: ids of the clients that were called; None allows every client.

    Attributes:
        left_out: number of refused uploads by reason, see `REASONS`.
    """

    def __init__(self, broadcast: Mapping[str, torch.Tensor], round: int, clients: torch.Tensor | None = None) -> None:
        self.like = {name: (tuple(value.shape), value.dtype) for name, value in broadcast.items()}
        self.round = round
        self.called = None if clients is None else frozenset(clients.tolist())
        self.left_out: Counter[str] = Counter()
        self._admitted: set[int] = set()

    def admit(self, client: int, round: int, upload: Mapping[str, torch.Tensor]) -> str | None:
        """Check an upload; a client may send again only if its upload was refused.

        Args:
            client: id.
            round: that the upload is for.
            upload: by tensor name.

        Returns:
            None if the upload is used; otherwise the reason, which is counted.
        """
        reason = self._reason(client, round, upload)
        if reason is None:
            self._admitted.add(client)
        else:
            self.left_out[reason] += 1
        return reason

    def _reason(self, client: int, round: int, upload: Mapping[str, torch.Tensor]) -> str | None:
        if round != self.round:
            return "stale"
        if client in self._admitted:
            return "duplicate"
        if self.called is not None and client not in self.called:
            return "unknown client"
        if upload.keys() != self.like.keys():
            return "wrong names"
        for name, value in upload.items():
            shape, kind = self.like[name]
            if tuple(value.shape) != shape:
                return "wrong shape"
            if value.dtype != kind:
                return "wrong type"
            if not bool(torch.isfinite(value).all()):
                return "not finite"
        return None


def tensor_bytes(message: Message) -> int:
    """Compute the bytes of a message's tensors and item ids, without round, client and weight."""
    touched = [message[name] for name in (ITEMS, ROWS, LAYERS) if name in message]
    return sum(value.numel() * value.element_size() for value in [*payload(message).values(), *touched])


def on_the_wire(message: Message, samples: int | None) -> int:
    """Compute the bytes of the pickle of FedML's message.

    Args:
        message: the tensors.
        samples: of the client, for an upload; None for a broadcast.
    """
    from fedml.core.distributed.communication.message import Message as FedMLMessage
    from fedml.cross_silo.server.message_define import MyMessage

    down = samples is None
    kind = MyMessage.MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT if down else MyMessage.MSG_TYPE_C2S_SEND_MODEL_TO_SERVER
    wrapper = FedMLMessage(kind, 0 if down else 1, 1 if down else 0)
    wrapper.add_params(MyMessage.MSG_ARG_KEY_MODEL_PARAMS, message)
    if down:
        wrapper.add_params(MyMessage.MSG_ARG_KEY_CLIENT_INDEX, "0")
        wrapper.add_params(MyMessage.MSG_ARG_KEY_CLIENT_OS, "PythonClient")
    else:
        wrapper.add_params(MyMessage.MSG_ARG_KEY_NUM_SAMPLES, samples)
    return len(pickle.dumps(wrapper))
