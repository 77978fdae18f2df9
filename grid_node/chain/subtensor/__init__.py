"""A real subtensor behind the chain's port: JSON-RPC over one WebSocket, SCALE by async-substrate-interface."""

from grid_node.chain.subtensor.chain import SubtensorChain

__all__ = ["SubtensorChain"]
