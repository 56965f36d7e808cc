"""FedML's messages: an OrderedDict of tensors, and which uploads count.

Down: the broadcast and the round. Up: the mean of the client's uploads by the broadcast's names, the round it is for,
the client, its weight (samples, or users where alpha is equal), and how many of its users' updates were not finite.
With `fedvlr_upload: touched` only item rows with a gradient go up, with their item numbers: smaller, but it tells the
server which items the client met.

An upload that names a tensor that was not broadcast, has a wrong shape or type, holds NaN or infinity, comes a second
time, or belongs to another round gets weight 0 and is counted by reason; the round goes on with the rest. The engines'
uploads do not come as messages and are tested for finite numbers only (`engines.per_client`).

`tensor_bytes` counts a message's tensors; `on_the_wire` the pickle that FedML's GRPC sends, without what GRPC and TCP
add (needs FedML).
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
    """The server's message; tensors are copies."""
    out = OrderedDict((name, value.detach().cpu().clone()) for name, value in broadcast.named().items())
    out[ROUND] = torch.tensor(round)
    return out


def unpack_broadcast(message: Message, device: torch.device, dtype: torch.dtype) -> Broadcast:
    """The inverse of `pack_broadcast`, without the round; raises `ConfigError` for tensors that no server of ours sends."""
    return Broadcast.from_names({name: value.to(device, dtype) for name, value in payload(message).items()})


def payload(message: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """The message's tensors without the notes on it."""
    return OrderedDict((name, value) for name, value in message.items() if not name.startswith("fedvlr."))


def pack_upload(
    mean: Mapping[str, torch.Tensor], round: int, client: int, weight: float, broken: int, touched: bool
) -> Message:
    """A client's message."""
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
    """Stands for the upload of a client that is gone."""
    return OrderedDict([(ROUND, torch.tensor(round)), (CLIENT, torch.tensor(client))])


class Admission:
    """Reads the uploads of one round; `Intake` says which of them count.

    Reasons beside those of `Intake`: "no message of ours", "lost" (the server gave the client up), "wrong weight".
    """

    def __init__(self, broadcast: Broadcast, round: int) -> None:
        named = broadcast.named()
        self.shape = UploadShape(named)
        self.names = list(named)
        self.intake = Intake(named, round)

    def admit(self, message: object, reasons: Counter[str]) -> tuple[float, OrderedDict[str, torch.Tensor]] | None:
        """Weight and dense upload, or None with the reason counted; one of weight 0 says nothing and is no fault."""
        checked = self._checked(message, reasons)
        if isinstance(checked, str):
            reasons[checked] += 1
            return None
        return checked if checked[0] > 0 else None

    def _checked(self, message: object, reasons: Counter[str]) -> str | tuple[float, OrderedDict[str, torch.Tensor]]:
        """What `admit` gives, or why not."""
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
        """The upload's tensors, of touched rows in the broadcast's shapes; None where those rows do not fit."""
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
    """Uploads of one round.

    Args:
        broadcast: names, shapes and kinds of number to expect. round: the open round.
        clients: user ids that were called; None = anybody.

    Attributes:
        left_out: refused uploads by reason, see `REASONS`.
    """

    def __init__(self, broadcast: Mapping[str, torch.Tensor], round: int, clients: torch.Tensor | None = None) -> None:
        self.like = {name: (tuple(value.shape), value.dtype) for name, value in broadcast.items()}
        self.round = round
        self.called = None if clients is None else frozenset(clients.tolist())
        self.left_out: Counter[str] = Counter()
        self._admitted: set[int] = set()

    def admit(self, client: int, round: int, upload: Mapping[str, torch.Tensor]) -> str | None:
        """None when the upload counts; otherwise the reason why it does not, which is counted.

        A refused client may send again; an admitted one may not.
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
    """Bytes of what is broadcast or uploaded, without round, client and weight; with item numbers where they are sent."""
    touched = [message[name] for name in (ITEMS, ROWS, LAYERS) if name in message]
    return sum(value.numel() * value.element_size() for value in [*payload(message).values(), *touched])


def on_the_wire(message: Message, samples: int | None) -> int:
    """Bytes of the pickle of FedML's message around it: a broadcast, or an upload of a client with `samples`."""
    from fedml.core.distributed.communication.message import Message as FedMLMessage
    from fedml.cross_silo.server.message_define import MyMessage

    down = samples is None
    kind = MyMessage.MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT if down else MyMessage.MSG_TYPE_C2S_SEND_MODEL_TO_SERVER
    around = FedMLMessage(kind, 0 if down else 1, 1 if down else 0)
    around.add_params(MyMessage.MSG_ARG_KEY_MODEL_PARAMS, message)
    if down:
        around.add_params(MyMessage.MSG_ARG_KEY_CLIENT_INDEX, "0")
        around.add_params(MyMessage.MSG_ARG_KEY_CLIENT_OS, "PythonClient")
    else:
        around.add_params(MyMessage.MSG_ARG_KEY_NUM_SAMPLES, samples)
    return len(pickle.dumps(around))
