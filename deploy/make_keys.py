"""Makes the hotkey and the secret that the nodes of one grid share, unless the folder has them: make_keys.py FOLDER."""

import sys
from pathlib import Path

from grid_node.identity.node_key import NodeKey
from grid_node.secret import node_secret
from grid_node.settings import Settings


def main(folder: Path) -> None:
    node_secret(folder)
    node_key = NodeKey.load(Settings.load(data_dir=folder, node_key_file=""))
    sys.stdout.write(f"{node_key.hotkey}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
