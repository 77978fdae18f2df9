"""The Socket.IO face: one module a namespace or family, one place for connections, one module that emits."""
