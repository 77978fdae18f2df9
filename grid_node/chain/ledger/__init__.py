"""A chain without a network: subnets, neurons, weights and commitments in the node's own database."""
