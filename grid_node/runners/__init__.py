"""Models that run elsewhere: registered by signature, reached through tunnels, called with checked input."""
