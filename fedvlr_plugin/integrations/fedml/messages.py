"""What goes over the wire, as FedML wants it: an OrderedDict of tensors.

Down: the broadcast and the round. Up: the mean of the client's uploads by the broadcast's names, the round it is for,
the client, its weight (samples, or users where alpha is equal), and how many of its users' updates were not finite.
With `fedvlr_upload: touched` only rows with a gradient go up, with their item numbers: smaller, but it tells the
server which items the client met. Imports `federation`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

import torch

from fedvlr_plugin.aggregation.uploads import UploadShape
from fedvlr_plugin.federation.intake import Intake

Message = OrderedDict[str, torch.Tensor]
ROUND, CLIENT, WEIGHT, BROKEN = "fedvlr.round", "fedvlr.client", "fedvlr.weight", "fedvlr.broken"
ITEMS, ROWS, LAYERS = "fedvlr.items", "fedvlr.rows", "fedvlr.layers"


def pack_broadcast(broadcast: Mapping[str, torch.Tensor], round: int) -> Message:
    """The server's message; tensors are copies."""
    out = OrderedDict((name, value.detach().cpu().clone()) for name, value in broadcast.items())
    out[ROUND] = torch.tensor(round)
    return out


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
    """Opens the messages of one round; which uploads count is `intake`'s rule, and says why others do not.

    Reasons beside those of `intake`: "no message of ours", "lost" (the server gave the client up), "wrong weight".
    """

    def __init__(self, broadcast: Mapping[str, torch.Tensor], round: int) -> None:
        self.shape = UploadShape(broadcast)
        self.names = list(broadcast)
        self.door = Intake(broadcast, round)

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
        if message.keys() == {ROUND, CLIENT} and round == self.door.round:
            return "lost"
        dense = self._dense(message)
        reason = "wrong shape" if dense is None else self.door.admit(client, round, dense)
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
