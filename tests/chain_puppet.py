"""Plays the chain's process: `python -m tests.chain_puppet <descriptor>`, with PUPPET in the environment.

good: beats once and answers every call with its arguments (`refuse`, `sleep` and `die` are operations of their own);
garbage: says what is no frame; mute: says nothing at all; dead: ends at once with status 3; alien: answers calls that
nobody made, and beats that are none.
"""

import os
import socket
import sys
import threading

from grid_node.chain.frames import Beat, Kind, packed, receive
from grid_node.chain.ports import Block

BEAT = Beat(Block(1000, "0x" + "00" * 32, 1_800_000_000), 990, 0.5, None, {"sn1": "5F"})


def main(peer: socket.socket, mode: str) -> int:
    def say(kind, number, meta, body=b""):
        peer.sendall(b"".join(packed(kind, number, meta, body)))

    if mode == "dead":
        return 3
    if mode == "garbage":
        peer.sendall(b"garbage" * 100)
    if mode == "alien":
        say(Kind.ANSWER, 77, {})
        say(Kind.BEAT, 0, {"beat": {"block": "none"}})
    if mode == "good":
        say(Kind.BEAT, 0, {"beat": BEAT.body(), "samples": [["fallback", "stale_block", "get_block", "N/A"]]})
    while (frame := receive(peer)) is not None:
        op, args = frame.meta["op"], frame.meta["args"]
        if op == "die":
            return 4
        if op == "refuse":
            say(Kind.REFUSED, frame.id, args)
        elif op == "sleep":
            threading.Event().wait(args["seconds"])
            say(Kind.ANSWER, frame.id, args)
        else:
            say(Kind.ANSWER, frame.id, {"op": op, **args}, b"body")
    return 0


if __name__ == "__main__":
    sys.exit(main(socket.socket(fileno=int(sys.argv[1])), os.environ["PUPPET"]))
