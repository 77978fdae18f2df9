"""The node's side of the processes that check, run and split models. No torch here, and no database."""
