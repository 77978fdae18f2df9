"""Where features meet: the ports of one, filled by others. Nothing here decides anything."""
