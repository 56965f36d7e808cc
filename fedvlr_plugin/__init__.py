"""FedVLR: federated vision-language recommendation for RecBole and FedML users."""

__version__ = "0.1.0"
