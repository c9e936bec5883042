"""A scripted stand-in for an engine that serves well and behaves badly: starts the reference server beside its mischief.

    hostile.py MODE PIDS REFERENCE ARG...

MODE is one or more of these, joined by `+`; every process that is started goes into the file PIDS.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

modes, pids, reference = sys.argv[1].split("+"), sys.argv[2], sys.argv[3:]
port = reference[reference.index("--port") + 1]


def note(pid):
    with open(pids, "a") as file:
        file.write(f"{pid}\n")


def flood():
    """100 MB a second, ten thousand lines at a time."""
    block = (b"x" * 99 + b"\n") * 10_000
    due = time.monotonic()
    while True:
        os.write(1, block)
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))


def requests_so_far():
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/reference/totals") as page:
        return json.load(page)["requests"]


note(os.getpid())
print("first words", flush=True)
if "ignores-sigterm" in modes:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "forks" in modes:
    # One in the group, one in a session of its own, and one that a dead parent leaves behind.
    note(subprocess.Popen(["sleep", "600"]).pid)
    note(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
    detached = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=2).pid)"
    note(int(subprocess.check_output([sys.executable, "-c", detached])))
if "is-killed-loading" in modes:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if "loads-long" in modes:
    for shard in range(6000):
        print(f"loading shard {shard} of 6000", flush=True)
        time.sleep(0.1)
server = subprocess.Popen(reference)
note(server.pid)
if "floods" in modes:
    threading.Thread(target=flood, daemon=True).start()
if "is-killed" in modes:
    while True:
        try:
            if requests_so_far() >= 20:
                break
        except OSError:
            pass
        time.sleep(0.05)
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    time.sleep(60)
