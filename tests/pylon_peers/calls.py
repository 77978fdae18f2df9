"""A client of the chain service at work, run with the Python that has it: `python calls.py MODULE sync|async`.

The first line of the input is the client's configuration as JSON, each further one a call
`{"face", "method", "arguments"}`. One line is printed for each call: `{"type", "answer"}`, `{"error", "text"}` with the
exception's name, or `{"absent": true}` where the client has no such method.
"""

import asyncio
import importlib
import json
import sys


class Program:
    def __init__(self, chain):
        self.chain = chain

    def arguments(self, given):
        """Commitments that are given as `{"bytes": digits}` go in as bytes, all else as it is."""
        as_bytes = self.chain.CommitmentDataBytes.fromhex
        return {name: as_bytes(value["bytes"]) if self.is_bytes(name, value) else value for name, value in given}

    @staticmethod
    def is_bytes(name, value):
        return name == "commitment" and isinstance(value, dict)

    def bound(self, client, call):
        face = getattr(client, call["face"])
        return getattr(face, call["method"], None), self.arguments(call["arguments"].items())

    def run(self, config):
        with self.chain.PylonClient(self.chain.Config(**config)) as client:
            for line in sys.stdin:
                try:
                    method, arguments = self.bound(client, json.loads(line))
                    said = {"absent": True} if method is None else told(method(**arguments))
                except self.chain.BasePylonException as error:
                    said = failed(error)
                print(json.dumps(said), flush=True)

    async def run_async(self, config):
        async with self.chain.AsyncPylonClient(self.chain.AsyncConfig(**config)) as client:
            for line in sys.stdin:
                try:
                    method, arguments = self.bound(client, json.loads(line))
                    said = {"absent": True} if method is None else told(await method(**arguments))
                except self.chain.BasePylonException as error:
                    said = failed(error)
                print(json.dumps(said), flush=True)


def told(answer):
    return {"type": type(answer).__name__, "answer": answer.model_dump(mode="json")}


def failed(error):
    text = " <- ".join(str(one) for one in (error, error.__cause__) if one is not None)
    return {"error": type(error).__name__, "text": text}


def main(module, mode):
    program = Program(importlib.import_module(module))
    config = json.loads(sys.stdin.readline())
    if mode == "async":
        asyncio.run(program.run_async(config))
    else:
        program.run(config)


if __name__ == "__main__":
    main(*sys.argv[1:])
