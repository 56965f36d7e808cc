"""What the server sends: names and back, in one order, and refusals that say what is allowed."""

import pytest
import torch
from helpers.federation_toy import build, cases
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_plugin.aggregation.broadcast import Broadcast, SharedLayer
from fedvlr_plugin.errors import ConfigError

WORDS = st.lists(st.text("abc_1", min_size=1, max_size=4), max_size=3, unique=True)


@given(views=st.booleans(), tables=WORDS, layers=WORDS)
def test_names_and_back(views, tables, layers):
    sent = Broadcast(
        torch.rand(3, 5, 2) if views else None,
        {name: torch.rand(5, 4) for name in tables},
        {name: SharedLayer(torch.rand(2, 3), torch.rand(2)) for name in layers},
    )
    named = sent.named()
    back = Broadcast.from_names(named)
    assert list(back.named()) == list(named)
    assert all(back.named()[name] is tensor for name, tensor in named.items())
    assert sent.size_bytes == 4 * (30 * views + 20 * len(tables) + 8 * len(layers))
    assert [id(tensor) for tensor in named.values()] == [
        id(tensor) for tensor in [*sent.item_tensors(), *sent.layer_tensors()]
    ]
    doubled = sent.map(lambda tensor: 2 * tensor).named()
    assert all(torch.equal(doubled[name], 2 * tensor) for name, tensor in named.items())


@cases
def test_the_names_are_those_of_stored_messages(make_spec, backbone, fusion):
    """`views`, `table.*`, then each layer's weight and bias: what FedML clients of earlier versions understand."""
    model = build(make_spec, backbone, fusion).server.model
    expected = [] if model.fusion is None and model.id_table is None else ["views"]
    expected += [f"table.{name}" for name in model.tables]
    expected += [f"layer.{name}" for name, _ in model.layers.named_parameters()]
    assert list(model().named()) == expected


@pytest.mark.parametrize(
    "names, message",
    [
        (["view"], "'view' is no tensor of a broadcast; allowed: views, table.<name>"),
        (["layer.weight"], "'layer.weight' is no tensor"),
        (["layer.a.gain"], "'layer.a.gain' is no tensor"),
        (["views", "layer.a.bias"], "layer 'a' has only its bias"),
    ],
)
def test_other_names_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        Broadcast.from_names({name: torch.zeros(2) for name in names})


def test_nothing_of_it_can_be_set_and_absent_views_are_named():
    sent = Broadcast(tables={"a": torch.zeros(2, 2)})
    with pytest.raises(AttributeError):
        sent.views = torch.zeros(1)
    with pytest.raises(RuntimeError, match="no item views"):
        sent.item_views()
