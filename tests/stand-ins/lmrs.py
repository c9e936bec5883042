"""A scripted stand-in for lm.rs's `backend`: takes its arguments, and answers each prompt with the frames in
tests/data/streams/lmrs.txt and the one that ends an answer."""

import argparse
import base64
import hashlib
import json
import pathlib
import socketserver

parser = argparse.ArgumentParser(allow_abbrev=False)
for option in ("--ip", "--port", "--model", "--tokenizer", "--temperature", "--top-p"):
    parser.add_argument(option, required=True)
options = parser.parse_args()
for file in (options.model, options.tokenizer):
    assert pathlib.Path(file).is_file(), file
recorded = pathlib.Path(__file__).parents[1] / "data/streams/lmrs.txt"
frames = [*recorded.read_text().splitlines(), json.dumps({"category": "OUTPUT", "text": "<eos>"})]


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        headers = {}
        while (line := self.rfile.readline().strip()):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        if b"sec-websocket-key" not in headers:
            return
        key = headers[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest())
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        asked = json.loads(self.text())
        assert asked["text"].strip(), "Text to encode should not be empty"
        try:
            for frame in frames:
                frame = frame.encode()
                assert len(frame) < 126
                self.wfile.write(bytes([0x81, len(frame)]) + frame)
            self.rfile.read(1)
        except ConnectionError:
            pass

    def text(self):
        """The client's text frame, which is masked."""
        _, length = self.rfile.read(2)
        length &= 0x7F
        if length == 126:
            length = int.from_bytes(self.rfile.read(2), "big")
        mask = self.rfile.read(4)
        return bytes(byte ^ mask[n % 4] for n, byte in enumerate(self.rfile.read(length)))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server((options.ip, int(options.port)), Connection).serve_forever()
