"""Who is asking, and how much they may: API keys, limits, hotkeys, replay memory, standing."""
