"""The command `grid-client`."""
