"""Grid Node: everything that knows no transport, plus its HTTP face and its command line."""
