"""Views by name, and the view of naive VBPR."""

import numpy as np
import pytest
import torch
from helpers.toy import make_toy

from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.errors import ConfigError, UnknownNameError
from fedvlr_plugin.fusion.views import ContentViews, NaiveVBPRView, check_views


def source():
    return torch.Generator().manual_seed(0)


def test_naive_vbpr_view_is_id_beside_projected_content():
    data = make_toy()
    view = NaiveVBPRView(data.features, 8, source(), torch.float64)
    ids = torch.randn(23, 8, dtype=torch.float64, generator=source())
    out = view(ids)
    content = np.concatenate([m.matrix for m in data.features.values()], axis=1).astype(float)
    weight, bias = view.projection.weight.detach().numpy(), view.projection.bias.detach().numpy()
    assert np.allclose(out.detach().numpy()[0], np.concatenate([ids.numpy(), content @ weight.T + bias], axis=1))
    with pytest.raises(ConfigError, match="needs a content modality"):
        NaiveVBPRView(ItemFeatures([]), 8, source(), torch.float64)


def test_unknown_and_repeated_views_are_refused_by_name():
    with pytest.raises(UnknownNameError, match="gate"):
        check_views(["gates"])
    with pytest.raises(ConfigError, match="twice"):
        check_views(["sum", "sum"])
    with pytest.raises(ConfigError, match="allowed: vision, text, id"):
        ContentViews(make_toy().features, 8, ("only:sound",), True, source(), torch.float32)
