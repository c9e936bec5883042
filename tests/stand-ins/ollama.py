"""A scripted stand-in for `ollama`: serves only what `create` made, in the form of Ollama's own answers."""

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
            error = {"error": {"message": f"model '{request['model']}' not found", "type": "api_error"}}
            return self.send(404, json.dumps(error).encode())
        if "ignore_eos" in request:
            return self.send(400, b'{"error": {"message": "the real one would ignore this field"}}')
        if not request.get("stream"):
            return self.send(200, json.dumps({"choices": [{"index": 0, "text": "x"}]}).encode())
        self.send(200, stream(request).encode(), "text/event-stream")

    def log_message(self, *_):
        pass


def stream(request):
    # Ends early, as a model that is not told to go on does.
    count = min(request["max_tokens"], 3)
    pieces = [(f" w{n}", None) for n in range(count)] + [("", "stop")]
    chunks = [choice(text, reason) for text, reason in pieces]
    if request.get("stream_options", {}).get("include_usage"):
        usage = {"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + count}
        chunks.append({**choice("", None), "choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def choice(text, reason):
    delta = {"role": "assistant", "content": text}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "system_fingerprint": "fp_ollama", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


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
