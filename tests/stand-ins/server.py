"""A scripted stand-in for an engine's server: answers one completion, or misbehaves the way its argument says."""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

mode, port, pids = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def note(pid):
    with open(pids, "a") as file:
        file.write(f"{pid}\n")


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/props":
            self.answer(200, {"slots": 3, "model": {"context": 512}})
        else:
            self.answer(503 if mode == "never-ready" else 200, {})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if mode == "refuses":
            self.answer(401, {"error": {"message": "no key"}})
        else:
            self.answer(200, {"choices": [{"text": "x"}]})

    def log_message(self, *_):
        pass


note(os.getpid())
if sys.argv[4:] == ["prepares"]:
    time.sleep(600)
print("stand-in", mode, "on", port, flush=True)
if mode == "dies":
    print("cannot load: file is cut short", file=sys.stderr)
    sys.exit(7)
if mode == "comes-second":
    # Somebody else is to take the port that it was given first.
    taken = pids + ".taken"
    if not os.path.exists(taken):
        pathlib.Path(pids + ".port").write_text(str(port))
        while not os.path.exists(taken):
            time.sleep(0.01)
if mode == "ignores-sigterm":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "forks":
    # One in the group, one in a session of its own, and one that a dead parent leaves behind.
    note(subprocess.Popen(["sleep", "600"]).pid)
    note(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
    detached = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=2).pid)"
    note(int(subprocess.check_output([sys.executable, "-c", detached])))
if mode == "floods":
    line = b"x" * 1023 + b"\n"
    for _ in range(64 * 1024):
        os.write(1, line)
    print("the last line", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
