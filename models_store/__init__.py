"""The torch model store: formats, the processes that check, run and split models. torch is loaded here, and never by
the node itself: everything that needs it runs in processes of this package."""
