"""Resumable uploads, tus 1.0.0: rows, partial files, and the port to what an upload is for."""
