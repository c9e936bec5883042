"""A stand-in for the interpreter of an environment with `transformers`: converts as `convert.py` does, serves the
streams that `transformers serve` was recorded with, and refuses what it refuses."""

import http.server
import json
import pathlib
import sys
import threading

script, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
assert script.is_file(), script
streams = pathlib.Path(__file__).parents[2] / "servers/protocol/tests/streams"
TAKEN = {
    "messages", "prompt", "model", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop",
    "stream_options", "generation_config", "chat_template_kwargs",
}


def convert(model, out):
    out = pathlib.Path(out)
    (out / "config.json").write_text("{}")
    (out / "model.safetensors").write_bytes(pathlib.Path(model).read_bytes())
    print("writing")
    print(json.dumps({"format": "safetensors float32", "bits_per_weight": 32.0}))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    first = None
    one_by_one = threading.Lock()

    def send(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = {"/health": {"status": "ok"}, "/v1/models": {"object": "list", "data": []}}
        found = known.get(self.path)
        self.send(200 if found else 404, json.dumps(found).encode())

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        unexpected = set(request) - TAKEN
        if unexpected:
            detail = f"Unexpected fields in the request: {unexpected}"
            return self.send(422, json.dumps({"detail": detail}).encode())
        if request.get("model", model) != model:
            detail = f"Server is pinned to '{model}'; requested '{request['model']}'."
            return self.send(400, json.dumps({"detail": detail}).encode())
        sampling = (request.get("temperature"), request.get("top_p"))
        Handler.first = Handler.first or sampling
        if batching and sampling != Handler.first:
            return self.send(500, b'{"error": "the real one would sample this like its first request"}')
        if not request.get("stream"):
            return self.send(200, json.dumps({"choices": [{"index": 0, "text": "x"}]}).encode())
        with Handler.one_by_one:
            self.send(200, stream(request).encode(), "text/event-stream; charset=utf-8")

    def log_message(self, *_):
        pass


def stream(request):
    """The recorded one, cut or repeated to the length that was asked for."""
    first, *texts, last = [json.loads(line[6:]) for line in recorded.splitlines() if line.startswith("data: ")]
    end = json.loads(request.get("generation_config") or "{}").get("eos_token_id")
    most, recorded_tokens = request["max_tokens"], last["usage"]["completion_tokens"]
    # The end token has no text.
    count = most if end == -1 else min(most, recorded_tokens)
    pieces = [texts[n % len(texts)] for n in range(count - (count == recorded_tokens and end != -1))]
    last["choices"][0]["finish_reason"] = "length" if count == most else "stop"
    last["usage"] = {"prompt_tokens": 36, "completion_tokens": count, "total_tokens": 36 + count}
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in [first, *pieces, last])


if script.name == "convert.py":
    convert(*words)
else:
    flags = dict(zip(words, words[1:]))
    model, batching = flags["--model"], "--continuous-batching" in words
    assert (pathlib.Path(model) / "config.json").is_file(), model
    recorded = (streams / f"transformers-serve{'-cb' if batching else ''}.txt").read_text()
    print("told", *words, flush=True)
    http.server.ThreadingHTTPServer((flags["--host"], int(flags["--port"])), Handler).serve_forever()
