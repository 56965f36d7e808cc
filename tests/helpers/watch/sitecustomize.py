"""Put on PYTHONPATH: notes every file that this process opens for writing or makes, and every address it asks for.

A line per event in the file that FEDVLR_WATCH names. An address that is not loopback is noted and refused.
"""

import os
import sys

LOG = os.open(os.environ["FEDVLR_WATCH"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
HERE = ("127.0.0.1", "::1", "localhost", None, "")
MADE = ("os.mkdir", "os.rename", "os.link", "os.symlink")


def note(kind, what):
    os.write(LOG, f"{kind}\t{what}\n".encode())


def watch(event, args):
    if event == "open" and not isinstance(args[0], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        note("file", os.path.abspath(os.fsdecode(args[0])))
    elif event in MADE:
        note("file", os.path.abspath(os.fsdecode(args[0 if event == "os.mkdir" else 1])))
    elif event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[0] if event.startswith("socket.get") else args[1]
        host = address[0] if isinstance(address, tuple) else address
        if host not in HERE:
            note("network", f"{event} {host}")
            raise OSError(f"refused: {host}")


sys.addaudithook(watch)
