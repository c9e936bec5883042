"""A scripted stand-in for `ollama`: serves only what `create` made, and replays the stream that v0.9.3 was recorded with,
in tests/data/streams/ollama.sse."""

import http.server
import json
import os
import pathlib
import sys

models = pathlib.Path(os.environ.get("OLLAMA_MODELS", ""))
command = sys.argv[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = self.path == "/api/version"
        self.send(200 if known else 404, json.dumps({"version": "0.0.0-stand-in"}).encode())

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not (models / request["model"]).is_file():
            words = f'model "{request["model"]}" not found, try pulling it first'
            error = {"error": {"message": words, "type": "api_error", "param": None, "code": None}}
            return self.send(404, json.dumps(error).encode())
        if unread := {"ignore_eos", "max_completion_tokens", "top_k"} & request.keys():
            return self.send(400, json.dumps({"error": {"message": f"the real one would not read {unread}"}}).encode())
        if not request.get("stream"):
            return self.send(200, json.dumps({"choices": [{"index": 0, "text": "x"}]}).encode())
        self.send(200, stream(request).encode(), "text/event-stream")

    def log_message(self, *_):
        pass


def stream(request):
    """The recorded one, cut to the length asked for. Its last token, the end token, has no text."""
    recorded = pathlib.Path(__file__).parents[1] / "data/streams/ollama.sse"
    events = [line.removeprefix("data: ") for line in recorded.read_text().splitlines() if line]
    *texts, finish, usage = [json.loads(event) for event in events[:-1]]
    count = min(request["max_tokens"], usage["usage"]["completion_tokens"])
    if count <= len(texts):
        texts, finish["choices"][0]["finish_reason"] = texts[:count], "length"
    usage["usage"] |= {"completion_tokens": count, "total_tokens": usage["usage"]["prompt_tokens"] + count}
    asked = request.get("stream_options", {}).get("include_usage")
    sent = [json.dumps(chunk) for chunk in [*texts, finish, *([usage] if asked else [])]]
    return "".join(f"data: {event}\n\n" for event in [*sent, events[-1]])


if command == "--version":
    print("Warning: client version is 0.0.0-stand-in")
elif command == "create":
    name, flag, modelfile = sys.argv[2:5]
    assert flag == "--file" and pathlib.Path(modelfile).read_text().startswith("FROM /"), sys.argv
    models.mkdir(parents=True, exist_ok=True)
    (models / name).write_text("made")
elif command == "serve":
    assert os.environ["OLLAMA_NUM_PARALLEL"] == "2", "the users asked for"
    host, port = os.environ["OLLAMA_HOST"].split(":")
    http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
