"""What to install in an environment of its own: `peer_requirements.py syft [torch]` prints pip's arguments.

With `torch` only torch itself, which has to be there first and exactly: any other version brings gigabytes of CUDA
libraries. The requirements of syft are the extra of that name in setup.cfg; the others are published clients and peers
that tests and benchmarks use unmodified.
"""

import configparser
import sys
from pathlib import Path

PEERS = {
    "triton": ["tritonclient[http]==2.73.0"],
    "tus": ["tuspy==1.1.0"],
    "litserve": ["torch==2.13.0", "litserve==0.2.19"],
    "nats": ["nats-py==2.16.0"],
    "replicate": ["replicate==1.0.7"],
    "pylon-service": ["bittensor-pylon-client[service]==1.0.0"],
    "pylon-1.0.0": ["bittensor-pylon-client==1.0.0"],
    "pylon-1.9.0": ["bittensor-pylon-client==1.9.0"],
    "pylon-2.0.0": ["bittensor-pylon-client==2.0.0"],
    "pylon-2.3.1": ["bittensor-pylon-client==2.3.1"],
    "cog-0.23.1": ["cog==0.23.1", "coglet==0.23.1"],
    "cog-0.20.0": ["cog==0.20.0", "coglet==0.20.0"],
    "cog-0.16.12": ["cog==0.16.12"],
    "cog-0.13.7": ["cog==0.13.7"],
}


def requirements(name: str) -> list[str]:
    if name in PEERS:
        return PEERS[name]
    metadata = configparser.ConfigParser()
    metadata.read(Path(__file__).resolve().parents[1] / "setup.cfg")
    return metadata["options.extras_require"][name].split()


def main(name: str, only: str = "") -> None:
    wanted = [line for line in requirements(name) if line.startswith(only)]
    sys.stdout.write(" ".join(wanted or ["pip"]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
