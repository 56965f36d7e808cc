"""How large the pair's messages are: the tensors alone, and as FedML's GRPC sends them (a pickle). Imports `messages`.

`on_the_wire` needs FedML; what GRPC and TCP add to a message is not counted.
"""

from __future__ import annotations

import pickle

from fedvlr_plugin.integrations.fedml.messages import ITEMS, LAYERS, ROWS, Message, payload


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
