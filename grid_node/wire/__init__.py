"""The wire: WebSocket framing, the Engine.IO transport and the Socket.IO server, all with hard limits.

Knows no web framework, no database and no event loop by name: sockets, locks and selectors come from the standard
library, which is cooperative where the start-up file has patched it and native where it has not.
"""
