"""A scripted stand-in for an engine whose answers are known: words that the prompt decides, and how likely they were."""

import argparse
import http.server
import json
import math
import threading
import time
import zlib

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--differ-at", type=int, help="from this token on, say other words")
parser.add_argument("--gap", type=float, default=0.05, help="how much likelier a word is than the other one")
parser.add_argument("--garble-above", type=int, help="say other words while more streams than this run")
parser.add_argument("--hold-after", type=int, help="answer no more questions that verify than this many")
parser.add_argument("--mute", action="store_true", help="refuse to tell log probabilities")
parser.add_argument("--logits", action="store_true", help="tell decimal logarithms of logits, as mistral.rs does")
parser.add_argument("--count", type=int, default=1, help="tokens that each word counts for")
args = parser.parse_args()

WORDS = [" tide", " lamp", " stone", " bread", " cloud", " river", " seven", " north", " glass", " paper", " green"]
running, verified, lock = 0, 0, threading.Lock()


def likely(word, logprob):
    return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


def told(word, other):
    """What stands at `logprobs` of a word's event."""
    if args.logits:
        top = [{"token": n, "logprob": math.log10(logit), "bytes": text}
               for n, (text, logit) in enumerate([(word, 20), (other, 20 - args.gap)])]
        return {"token": word, "logprob": top[0]["logprob"], "bytes": list(word.encode()), "top_logprobs": top}
    top = [likely(word, -0.2), likely(other, -0.2 - args.gap)]
    return {"content": [{**likely(word, -0.2), "top_logprobs": top}]}


def words(prompt, most):
    """Each token: the word, and the other that might have stood there."""
    start = zlib.crc32(prompt.encode())
    garbled = False
    for n in range(most):
        word, other = WORDS[(start + 5 * n) % 11], WORDS[(start + 5 * n + 1) % 11]
        garbled |= args.garble_above is not None and running > args.garble_above
        differs = garbled or args.differ_at is not None and n >= args.differ_at
        yield (other, word) if differs else (word, other)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.begin(200, "application/json")
        self.wfile.write(json.dumps({"data": [{"id": "m"}]}).encode())

    def begin(self, status, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def do_POST(self):
        global running
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if args.mute and "logprobs" in request:
            self.begin(422, "application/json")
            self.wfile.write(b'{"error": {"message": "there is no field logprobs"}}')
            return
        if not request.get("stream"):
            self.begin(200, "application/json")
            self.wfile.write(json.dumps({"choices": [{"text": "x"}]}).encode())
            return
        self.begin(200, "text/event-stream")
        with lock:
            running += 1
        try:
            self.stream(request)
        except BrokenPipeError:
            pass
        finally:
            with lock:
                running -= 1

    def stream(self, request):
        global verified
        if request.get("logprobs"):
            with lock:
                verified += 1
                held = args.hold_after is not None and verified > args.hold_after
            if held:
                self.rfile.read(1)  # until whoever asked has gone
                return
        most = request["max_tokens"]
        for word, other in words(request["messages"][-1]["content"], most):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            if request.get("logprobs"):
                choice["logprobs"] = told(word, other)
            self.tell({"choices": [choice]})
            time.sleep(0.002)
        usage = {"prompt_tokens": 9, "completion_tokens": most * args.count}
        self.tell({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def tell(self, chunk):
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()
