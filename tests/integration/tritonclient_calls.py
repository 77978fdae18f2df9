"""Calls of the published tritonclient, run with the Python that has it: `python tritonclient_calls.py HOST:PORT`.

Reads a JSON object of rows from stdin, prints one JSON object: what each call returned, or `{"error": text}`.
"""

import json
import sys

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException


class Calls:
    def __init__(self, client, rows):
        self.client = client
        self.rows = np.array(rows, dtype=np.float32)
        self.results = {}

    def note(self, name, call):
        try:
            self.results[name] = call()
        except InferenceServerException as error:
            self.results[name] = {"error": error.message(), "status": error.status()}

    def infer(self, model="mlp", rows=None, binary=True, outputs=None, name="INPUT__0", kind="FP32", **more):
        return told(self.client.infer(model, self.inputs(rows, binary, name, kind), outputs=outputs, **more))

    def inputs(self, rows=None, binary=True, name="INPUT__0", kind="FP32"):
        data = self.rows if rows is None else rows
        tensor = http.InferInput(name, list(data.shape), kind)
        tensor.set_data_from_numpy(data, binary_data=binary)
        return [tensor]

    def wanted(self, binary, name="OUTPUT__0", classes=0):
        return [http.InferRequestedOutput(name, binary_data=binary, class_count=classes)]

    def run(self):
        note, client = self.note, self.client
        note("live", client.is_server_live)
        note("ready", client.is_server_ready)
        note("server", client.get_server_metadata)
        for name in ("mlp", "shut", "none"):
            note(f"ready {name}", lambda: client.is_model_ready(name))  # noqa: B023 - called at once
            note(f"metadata {name}", lambda: client.get_model_metadata(name))  # noqa: B023
            note(f"infer {name}", lambda: self.infer(name))  # noqa: B023
        for version in ("1", "2", "9"):
            note(f"ready {version}", lambda: client.is_model_ready("mlp", version))  # noqa: B023
            note(f"infer {version}", lambda: self.infer(model_version=version))  # noqa: B023
        note("index", client.get_model_repository_index)
        note("json", lambda: self.infer(binary=False, outputs=self.wanted(False), request_id="7"))
        note("json in, binary out", lambda: self.infer(binary=False, outputs=self.wanted(True)))
        for coding in ("gzip", "deflate"):
            both = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
            note(coding, lambda: self.infer(**both))  # noqa: B023
            note(f"{coding} json", lambda: self.infer(binary=False, outputs=self.wanted(False), **both))  # noqa: B023
        note("async", self.many)
        note("empty", lambda: self.infer(rows=self.rows[:0]))
        note("empty json", lambda: self.infer(rows=self.rows[:0], binary=False, outputs=self.wanted(False)))
        note("numbers", lambda: self.infer("words", np.array([[0, 2]], np.int64), kind="INT64"))
        note("halves", lambda: self.infer("half", self.rows.astype(np.float16), kind="FP16"))
        note(
            "halves json",
            lambda: self.infer("half", self.rows.astype(np.float16), False, self.wanted(False), kind="FP16"),
        )
        note("other input", lambda: self.infer(name="x"))
        note("other shape", lambda: self.infer(rows=self.rows[:, :2]))
        note("other type", lambda: self.infer(rows=self.rows.astype(np.float64), kind="FP64"))
        note("other output", lambda: self.infer(outputs=self.wanted(True, "x")))
        note("classes", lambda: self.infer(outputs=self.wanted(True, classes=2)))
        note("sequence", lambda: self.infer(sequence_id=3))
        note("text", lambda: self.infer(rows=np.array([b"a"], np.object_), kind="BYTES"))
        note("priority", lambda: self.infer(priority=2, timeout=20_000_000))
        note("too soon", lambda: self.infer(timeout=1))
        return self.results

    def many(self):
        """Sixteen requests at a time, each with its own row."""
        rows = [self.rows[[number % len(self.rows)]] for number in range(16)]
        asked = [self.client.async_infer("mlp", self.inputs(row)) for row in rows]
        return [told(one.get_result()) for one in asked]


def told(result):
    answer = result.get_response()
    return {"answer": answer, "values": result.as_numpy(answer["outputs"][0]["name"]).tolist()}


if __name__ == "__main__":
    with http.InferenceServerClient(sys.argv[1], concurrency=16) as connected:
        print(json.dumps(Calls(connected, json.load(sys.stdin)).run()))
