"""A scripted stand-in for `loadtest-mistralrs`: loads for a moment, answers with the stream that the real one gave."""

import argparse
import http.server
import json
import os
import pathlib

flags = argparse.ArgumentParser()
for name in ["model", "model-name", "host"]:
    flags.add_argument(f"--{name}", required=True)
for name in ["port", "parallel", "context", "threads"]:
    flags.add_argument(f"--{name}", required=True, type=int)
flags.add_argument("--die-with-parent", required=True, action="store_true")
args = flags.parse_args()
assert os.environ["HF_HOME"].endswith("/huggingface"), "no folder of the user's is written to"

written = pathlib.Path(__file__).parent.parent / "data" / "mistralrs-chat.txt"
events = [line.removeprefix("data: ") for line in written.read_text().splitlines() if line.startswith("data: ")]
assert events.pop() == "[DONE]"
chunks = [json.loads(event) for event in events]
asked_while_loading = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send(self, status, body, kind="application/json"):
        body = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        global asked_while_loading
        asked_while_loading += 1
        if asked_while_loading < 3:
            return self.send(503, {"error": {"message": "The model is loading.", "type": "unavailable_error"}})
        props = {"parallel": args.parallel, "context": 8192, "threads": args.threads, "version": "0.0.0-stand-in",
                 "weights": "as in the file"}
        page = {"/health": "OK", "/props": props}.get(self.path)
        self.send(200 if page else 404, page or "")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if unread := {"ignore_eos", "min_tokens", "seed", "stream_options"} & request.keys():
            return self.send(400, {"message": f"the real one would not read {unread}"})
        if request["model"] not in (args.model_name, "default"):
            return self.send(500, {"message": f"Requested model '{request['model']}' is not available."})
        if not isinstance(request.get("prompt", ""), str):
            return self.send(422, "Failed to deserialize the JSON body into the target type", "text/plain")
        if not request.get("stream"):
            return self.send(200, {"choices": [{"index": 0, "text": "x", "finish_reason": "length"}]})
        self.send(200, stream(request["max_tokens"]), "text/event-stream")

    def log_message(self, *_):
        pass


def stream(count):
    """The stream's beginning and end, as long as asked for."""
    last = json.loads(json.dumps(chunks[-1]))
    last["usage"] |= {"completion_tokens": count, "total_tokens": last["usage"]["prompt_tokens"] + count}
    sent = [chunks[n % (len(chunks) - 1)] for n in range(count - 1)] + [last]
    return ":\n\n" + "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in sent) + "data: [DONE]\n\n"


http.server.ThreadingHTTPServer((args.host, args.port), Handler).serve_forever()
