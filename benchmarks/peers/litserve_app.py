"""LitServe, tuned: batches of what waits, its faster queue, one API process beside one worker.

python litserve_app.py PORT
"""

import os
import sys
from typing import Any

import litserve as ls
from _work import MAX_BATCH, TIMEOUT, load

#: Seconds that a batch waits for more; without a window it would poll its queue without a pause.
WINDOW = float(os.environ.get("WINDOW", "0.001"))


class Peer(ls.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - what LitServe calls it with
        self.work = load()

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.work(x)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output


if __name__ == "__main__":
    api = Peer(max_batch_size=MAX_BATCH, batch_timeout=WINDOW)
    server = ls.LitServer(api, accelerator="cpu", devices=1, fast_queue=True, timeout=TIMEOUT)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
