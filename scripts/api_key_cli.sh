#!/usr/bin/env bash
# API keys from the shell: api_key_cli.sh DB {list|gen|add <api_key> <name> <max_requests> <period>|remove <api_key>}
# DB is a SQLite file, a database URL, or - for the database that the node is configured with.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
[[ -x "$python" ]] || python=python3

# relative settings count from where the node is started; a DB file counts from here
if [[ "${1-}" == "-" ]]; then
    cd "$root"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m grid_node.cli.keys_script "$@"
