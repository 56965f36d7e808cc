"""Stands for a process of a cross-silo run, without FedML: `FAKE` says what a client does."""

import csv
import os
import socket
import sys
import time
from pathlib import Path

from fedvlr_plugin.integrations.fedml.subprocesses import STARTED, follow_parent

follow_parent(every=0.1)
config, rank = (sys.argv[sys.argv.index(name) + 1] for name in ("--cf", "--rank"))
if rank == "0":
    rows = list(csv.DictReader((Path(config).parent / "grpc_ipconfig.csv").open()))
    server = socket.create_server(("127.0.0.1", int(rows[0]["grpc_server_port"])))
elif "dies" in os.environ["FAKE"]:
    raise SystemExit("no such luck")
if rank == "0" and "starts" in os.environ["FAKE"]:
    print(STARTED, "round 1: 2 uploads", sep="\n", flush=True)
time.sleep(120)
