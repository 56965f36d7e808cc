"""A process of a cross-silo run whose client of rank 2 answers round 2 twelve seconds late."""

import sys
import time

from fedvlr_plugin.integrations.fedml.runtime import need_fedml

need_fedml()

from fedvlr_plugin.integrations.fedml import process, trainer  # noqa: E402 (FedML must come first)
from fedvlr_plugin.integrations.fedml.messages import ROUND  # noqa: E402

plain = trainer.FedVLRClientTrainer.train


def train(self, train_data, device, args):
    plain(self, train_data, device, args)
    if int(self.get_model_params()[ROUND]) == 2 and sys.argv[sys.argv.index("--rank") + 1] == "2":
        time.sleep(12)


trainer.FedVLRClientTrainer.train = train
raise SystemExit(process.main())
