"""Scoring of generated results: asset -> views -> signals -> score with reasons.

`port`, `kinds`, `settings` and `text` are light (standard library only) and may be imported anywhere; every other
module loads numpy, numba or torch and belongs into job processes.
"""
