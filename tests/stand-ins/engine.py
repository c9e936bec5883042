"""A scripted stand-in for an engine's own server: `engine.py NAME MARK ARGUMENTS...` takes the arguments that the real one
takes, refuses what it refuses, and replays the stream in tests/data/streams/NAME.sse. MARK tells its process from others.
With `--key KEY` it answers only who shows that, as a bearer token or in the header X-Key."""

import argparse
import http.server
import itertools
import json
import pathlib
import random
import sys
import threading

SAMPLING = ["temperature", "top_p", "top_k", "seed"]
USUAL = ["stop", *SAMPLING]


def out_of_range(body):
    """What SGLang, and vLLM before it took a `top_k` of 0, answer to a sampling parameter that they do not take."""
    if not 0 < body.get("top_p", 1) <= 1:
        return 400, f"top_p must be in (0, 1], got {body['top_p']}."
    if body.get("top_k", -1) < -1 or body.get("top_k") == 0:
        return 400, f"top_k must be -1 (disable), or at least 1, got {body['top_k']}."
    return None


ENGINES = {
    "llamacpp": {
        "options": ["--model", "--alias", "--host", "--port", "--parallel", "--ctx-size", "--threads", "--threads-batch"],
        "switches": ["--metrics", "--slots"],
        "pages": lambda o: {
            "/health": {"status": "ok"},
            "/props": {"total_slots": int(o.parallel), "model_ftype": "Q4_1", "default_generation_settings":
                       {"n_ctx": int(o.ctx_size) // int(o.parallel)}},
        },
        "name": lambda o: o.alias,
        "fields": ["ignore_eos", "cache_prompt", "max_completion_tokens", *USUAL],
    },
    "vllm": {
        "words": ["serve", "model"],
        "options": ["--served-model-name", "--host", "--port", "--max-num-seqs", "--max-model-len"],
        "switches": ["--no-enable-prefix-caching"],
        "pages": lambda o: {"/health": {}},
        "name": lambda o: o.served_model_name,
        "listed": lambda o: {"max_model_len": int(o.max_model_len)},
        "refuses": lambda body, o: (404, f"The model `{body['model']}` does not exist.")
        if body["model"] != o.served_model_name else out_of_range(body),
        "fields": ["ignore_eos", "max_completion_tokens", *USUAL],
    },
    "sglang": {
        "words": ["serve"],
        "options": ["--model-path", "--served-model-name", "--host", "--port", "--max-running-requests",
                    "--context-length"],
        "switches": ["--enable-metrics", "--disable-radix-cache"],
        "pages": lambda o: {
            "/health": {},
            "/get_server_info": {"max_running_requests": int(o.max_running_requests), "version": "0.0-stand-in",
                                 "context_length": int(o.context_length), "chunked_prefill_size": 2048,
                                 "device": "cuda"},
        },
        "name": lambda o: o.served_model_name,
        "refuses": lambda body, o: out_of_range(body),
        "fields": ["ignore_eos", "max_completion_tokens", *USUAL],
    },
    "tgi": {
        "options": ["--model-id", "--hostname", "--port", "--max-batch-size", "--max-total-tokens",
                    "--max-concurrent-requests"],
        "pages": lambda o: {
            "/health": {},
            "/info": {"model_id": o.model_id, "max_total_tokens": int(o.max_total_tokens), "version": "0.0-stand-in"},
        },
        "name": lambda o: o.model_id,
        "refuses": lambda body, o: (422, "Input validation error: `top_p` must be > 0.0 and < 1.0")
        if body.get("top_p") is not None and not 0 < body["top_p"] < 1 else None,
        "fields": ["max_completion_tokens", "stop", "temperature", "top_p", "seed"],
    },
    "uzu": {
        "words": ["server"],
        "options": ["--model", "--host", "--port"],
        "pages": lambda o: {},
        # It lists the name of the model that it resolved, whatever it was started with.
        "name": lambda o: "its own name",
        "paths": ["/v1/chat/completions"],
        "fields": ["max_completion_tokens", "temperature", "top_p", "top_k"],
        # One session, behind a lock.
        "lock": threading.Lock(),
    },
    "lmstudio": {
        "options": ["--port"],
        "pages": lambda o: {},
        "name": lambda o: "loaded-model",
        "fields": USUAL,
    },
    # No server that there is: all it can be asked for has other names, and it refuses the usual ones.
    "renamed": {
        "stream": "lmstudio",
        "options": ["--port"],
        "pages": lambda o: {},
        "name": lambda o: "loaded-model",
        "fields": ["ignore_eos", *USUAL],
        "names": {"temperature": "heat", "top_p": "nucleus", "top_k": "likeliest", "seed": "start", "ignore_eos": "go_on"},
    },
}
PATHS = ["/v1/completions", "/v1/chat/completions"]

name = sys.argv[1]
engine = ENGINES[name]
parser = argparse.ArgumentParser(allow_abbrev=False)
for word in engine.get("words", []):
    parser.add_argument(word if word == "model" else f"word_{word}", **({} if word == "model" else {"choices": [word]}))
for option in engine["options"]:
    parser.add_argument(option, required=True)
for switch in engine.get("switches", []):
    parser.add_argument(switch, action="store_true", required=True)
parser.add_argument("--key")
options = parser.parse_args(sys.argv[3:])
recorded = pathlib.Path(__file__).parents[1] / "data/streams" / f"{engine.get('stream', name)}.sse"
events = [line[len("data:"):].strip() for line in recorded.read_text().splitlines() if line.startswith("data:")]


def text_of(event):
    if event == "[DONE]":
        return None
    choices = json.loads(event).get("choices")
    return choices[0].get("delta", {}).get("content") if choices else None


texts = [number for number, event in enumerate(events) if text_of(event)]
head, tail = events[:texts[0]], events[texts[-1] + 1:]
tokens = [events[number] for number in texts]


def answer(body):
    """The recorded stream, as long as it was asked to be: cut short, or its tokens again and again."""
    most = (takes("max_completion_tokens") and body.get("max_completion_tokens")) or body.get("max_tokens")
    most = most or len(tokens)
    wanted = most if takes("ignore_eos") and body.get("ignore_eos") else min(most, len(tokens))
    chosen = drawn([tokens[number % len(tokens)] for number in range(wanted)], body)
    stops = (takes("stop") and body.get("stop")) or []
    stopped = next((n for n, event in enumerate(chosen) if any(stop in text_of(event) for stop in stops)), None)
    cut = wanted == most and stopped is None
    chosen = chosen[:stopped]
    usage_asked = (body.get("stream_options") or {}).get("include_usage", False)
    rest = []
    for event in tail:
        if event == "[DONE]":
            rest.append(event)
            continue
        chunk = json.loads(event)
        if not chunk["choices"] and not usage_asked:
            continue
        if cut and chunk["choices"] and chunk["choices"][0].get("finish_reason"):
            chunk["choices"][0]["finish_reason"] = "length"
        if chunk.get("usage"):
            chunk["usage"]["completion_tokens"] = len(chosen)
        rest.append(json.dumps(chunk))
    return "".join(f"data: {event}\n\n" for event in head + chosen + rest)


unseeded = itertools.count(1000)


def drawn(chosen, body):
    """In an order that the seed decides, or else the number of the answer, unless no token but the likeliest may be drawn."""
    told = {field: body[field] for field in SAMPLING if takes(field) and field in body}
    if told.get("temperature", 1) > 0 and told.get("top_p", 1) > 0.01 and told.get("top_k") != 1:
        random.Random(told.get("seed", next(unseeded))).shuffle(chosen)
    return chosen


def takes(field):
    return field in engine["fields"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refused(self):
        shown = (self.headers["Authorization"], self.headers["X-Key"])
        if options.key is None or f"Bearer {options.key}" in shown or options.key in shown:
            return False
        self.send(401, b'{"error": {"message": "no key, no answer"}}')
        return True

    def do_GET(self):
        if self.refused():
            return
        pages = engine["pages"](options)
        listed = {"id": engine["name"](options), "object": "model", **engine.get("listed", lambda _: {})(options)}
        pages["/v1/models"] = {"object": "list", "data": [listed]}
        page = pages.get(self.path)
        self.send(404 if page is None else 200, json.dumps(page).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return None
        names = engine.get("names", {})
        if usual := names.keys() & body.keys():
            return self.send(422, json.dumps({"error": {"message": f"unknown fields: {usual}"}}).encode())
        body |= {usual: body[own] for usual, own in names.items() if own in body}
        if self.path not in engine.get("paths", PATHS):
            return self.send(404, b'{"error": {"message": "no such path"}}')
        refused = engine.get("refuses", lambda *_: None)(body, options)
        if refused:
            return self.send(refused[0], json.dumps({"error": {"message": refused[1]}}).encode())
        if not body.get("stream"):
            return self.send(200, b'{"choices": [{"index": 0, "text": "x", "finish_reason": "length"}]}')
        with engine.get("lock", threading.Lock()):
            self.send(200, answer(body).encode(), "text/event-stream")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(options.port)), Handler).serve_forever()
