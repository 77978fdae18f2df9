"""Calls of the published replicate client, run with the Python that has it: `python replicate_calls.py URL OWNER`.

The key comes in the environment, as for every program of that client. Prints one JSON object: what each call returned,
or `{"error": text}`.
"""

import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.pagination import paginate

WAIT = 30


class Receiver(ThreadingHTTPServer):
    """Takes webhooks: headers and body of each."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Hook)
        self.taken = []
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait_for(self, event):
        with self.changed:
            assert self.changed.wait_for(lambda: any(event in body for _, body in self.taken), WAIT), self.taken
            return [(headers, body) for headers, body in self.taken if event in body]


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with self.server.changed:
            self.server.taken.append((dict(self.headers), body))
            self.server.changed.notify_all()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Calls:
    def __init__(self, client, owner):
        self.client = client
        self.painter, self.talker = f"{owner}/painter", f"{owner}/talker"
        self.results = {}

    def note(self, name, call):
        try:
            self.results[name] = call()
        except ModelError as error:
            self.results[name] = {"model error": str(error), "status": error.prediction.status}
        except ReplicateError as error:
            self.results[name] = {"error": error.to_dict()}

    def run(self):
        for call in (self.account, self.model, self.versions, self.models, self.files):
            self.note(call.__name__, call)
        for call in (self.painted, self.painted_by_version, self.from_file, self.from_data):
            self.note(call.__name__, call)
        for call in (self.talked, self.talked_by_version, self.failed, self.refused, self.unknown):
            self.note(call.__name__, call)
        for call in (self.waited, self.waited_in_vain, self.run_longer_than_its_wait, self.cancelled):
            self.note(call.__name__, call)
        for call in (self.streamed, self.streamed_failure, self.webhook, self.pages):
            self.note(call.__name__, call)

    # --- what there is ------------------------------------------------------------------------------------------

    def account(self):
        return self.client.accounts.current().dict()

    def model(self):
        model = self.client.models.get(self.painter)
        return {
            "id": model.id,
            "visibility": model.visibility,
            "version": model.latest_version.id,
            "cog_version": model.latest_version.cog_version,
            "input": sorted(model.latest_version.openapi_schema["components"]["schemas"]["Input"]["properties"]),
        }

    def versions(self):
        model = self.client.models.get(self.painter)
        listed = model.versions.list()
        return [[one.id for one in listed], model.versions.get(model.latest_version.id).id]

    def models(self):
        return sorted(model.id for page in paginate(self.client.models.list) for model in page)

    def files(self):
        file = io.BytesIO(b"some bytes")
        file.name = "some.txt"
        made = self.client.files.create(file, metadata={"a": 1})
        again, listed = self.client.files.get(made.id), [one.id for one in self.client.files.list()]
        gone = self.client.files.delete(made.id)
        return [made.name, made.size, made.metadata, again.id == made.id, made.id in listed, gone]

    # --- run ----------------------------------------------------------------------------------------------------

    def painted(self):
        return self.client.run(self.painter, input={"prompt": "two"})

    def painted_by_version(self):
        version = self.client.models.get(self.painter).latest_version.id
        return self.client.run(f"{self.painter}:{version}", input={"prompt": "two", "steps": 3})

    def from_file(self):
        file = io.BytesIO(b"\x89PNG 123")
        file.name = "a.png"
        return self.client.run(self.painter, input={"prompt": "copy", "image": file})

    def from_data(self):
        file = io.BytesIO(b"\x89PNG" + b"x" * 100_000)
        file.name = "a.png"
        return self.client.run(self.painter, input={"prompt": "copy", "image": file}, file_encoding_strategy="base64")

    def talked(self):
        return self.client.run(self.talker, input={"prompt": "one two three"})

    def talked_by_version(self):
        version = self.client.models.get(self.talker).latest_version.id
        return list(self.client.run(f"{self.talker}:{version}", input={"prompt": "one two three"}))

    def failed(self):
        return self.client.run(self.talker, input={"prompt": "fail"})

    def refused(self):
        return self.client.run(self.painter, input={"steps": 5000})

    def unknown(self):
        return self.client.run("nobody/nothing", input={"prompt": "x"})

    def waited(self):
        version = self.client.models.get(self.talker).latest_version
        made = self.client.predictions.create(version, {"prompt": "a b"}, wait=20)
        made.reload()
        return [made.status, made.output, self.client.predictions.get(made.id).status, made.logs]

    def waited_in_vain(self):
        version = self.client.models.get(self.talker).latest_version
        made = self.client.predictions.create(version, {"prompt": "slow"}, wait=1)
        status = made.status
        made.cancel()
        made.wait()
        return [status, made.status]

    def run_longer_than_its_wait(self):
        return list(self.client.run(self.talker, input={"prompt": "later"}, wait=1))

    def cancelled(self):
        made = self.client.models.predictions.create(self.talker, {"prompt": "slow"})
        made.cancel()
        made.wait()
        again = self.client.predictions.cancel(made.id)
        return [made.status, again.status, again.id == made.id]

    # --- updates ------------------------------------------------------------------------------------------------

    def streamed(self):
        events = list(self.client.stream(self.talker, input={"prompt": "one two"}))
        return [(one.event.value, one.data) for one in events] + ["".join(str(one) for one in events)]

    def streamed_failure(self):
        try:
            return [(one.event.value, one.data) for one in self.client.stream(self.talker, input={"prompt": "fail"})]
        except RuntimeError as error:
            return {"runtime error": str(error)}

    def webhook(self):
        receiver = Receiver()
        url = f"http://127.0.0.1:{receiver.server_port}/hook"
        made = self.client.models.predictions.create(
            self.talker, {"prompt": "told"}, webhook=url, webhook_events_filter=["completed"]
        )
        [(headers, body)] = receiver.wait_for('"succeeded"')
        secret = self.client.webhooks.default.secret()
        self.client.webhooks.validate(headers=headers, body=body, secret=secret)
        receiver.shutdown()
        return [json.loads(body)["id"] == made.id, json.loads(body)["output"]]

    def pages(self):
        pages = list(paginate(self.client.predictions.list))
        return [len(page.results) for page in pages], len({one.id for page in pages for one in page})


if __name__ == "__main__":
    calls = Calls(Client(base_url=sys.argv[1]), sys.argv[2])
    calls.client.poll_interval = 0.05
    calls.run()
    print(json.dumps(calls.results))
