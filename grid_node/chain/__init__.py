"""A Bittensor subnet behind one door: metagraph, commitments, certificates and weights, from a ledger in the node's
own database or from a real subtensor. The API is Pylon's."""
