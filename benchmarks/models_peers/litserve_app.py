"""The same MLP behind LitServe, run in an environment of its own: python litserve_app.py PORT WEIGHTS BATCH.

`WEIGHTS` is a torch.save file of four tensors made by the benchmark; BATCH 1 means one by one.
"""

import sys

import litserve as ls
import torch

PORT, WEIGHTS, BATCH = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])


class Mlp(ls.LitAPI):
    def setup(self, device):
        torch.set_num_threads(1)
        self.weights = torch.load(WEIGHTS, weights_only=True)

    def decode_request(self, request):
        return torch.tensor(request["input"], dtype=torch.float32)

    def batch(self, inputs):
        return torch.stack(inputs)

    def predict(self, x):
        one, one_bias, two, two_bias = self.weights
        with torch.inference_mode():
            linear = torch.nn.functional.linear
            return linear(torch.relu(linear(x, one, one_bias)), two, two_bias)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"output": output.tolist()}


if __name__ == "__main__":
    api = Mlp(max_batch_size=BATCH, batch_timeout=0.005 if BATCH > 1 else 0.0)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, log_level="warning")
