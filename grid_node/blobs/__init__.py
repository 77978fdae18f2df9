"""Content-addressed bytes: the port (`store`), a local folder (`local`), an object store (`remote`)."""
