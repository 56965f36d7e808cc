"""Federated backbones: what is shared, what is private, how an item is scored, how a client weighs (section 5).

One file per backbone, its frozen parameters beside it, one registry line each. Packages outside this one add
theirs through the entry-point group `fedvlr_plugin.backbones`.
"""

from fedvlr_plugin.backbones.base import BACKBONES, Backbone, BackboneParams, ClientView, Slopes
from fedvlr_plugin.backbones.fcf import FCF
from fedvlr_plugin.backbones.fedavg import FedAvg
from fedvlr_plugin.backbones.fedncf import FedNCF
from fedvlr_plugin.backbones.fedrap import FedRAP
from fedvlr_plugin.backbones.pfedrec import PFedRec

for _name, _backbone in (
    ("FedAvg", FedAvg),
    ("FCF", FCF),
    ("FedNCF", FedNCF),
    ("PFedRec", PFedRec),
    ("FedRAP", FedRAP),
):
    BACKBONES.add(_name, _backbone)

__all__ = [
    "BACKBONES",
    "FCF",
    "Backbone",
    "BackboneParams",
    "ClientView",
    "FedAvg",
    "FedNCF",
    "FedRAP",
    "PFedRec",
    "Slopes",
]
