"""Converts a GGUF of the Llama family to what lm.rs reads: `convert.py MODEL.gguf FOLDER` writes model.lmrs, its weights
in Q8_0, and tokenizer.bin. Needs numpy and gguf."""

import json
import pathlib
import struct
import sys

import numpy
from gguf import GGUFReader, dequantize

# lm.rs writes its prompts by number, with Llama 3's: the vocabulary must reach as far, and these must stand there.
VOCABULARY = 128_256
BEGIN, HEADER, HEADER_END, TURN_END = 128_000, 128_006, 128_007, 128_009
NEWLINES, SYSTEM, USER, ASSISTANT = 271, 9_125, 882, 78_191
# Its own system message, about the date; in its place a model with other tokens gets these words.
MESSAGE = [38_766, 1_303, 33_025, 2_696, 6_790, 2_366, 15_724]
WORDS = ["You", "Ġare", "Ġa", "Ġhelpful", "ĠAI", "Ġassistant", "."]
# A character that is no token becomes its bytes, as the tokens from here on.
FIRST_BYTE = 3
LLAMA, Q8_0 = 1, 1
# Tokens of context: lm.rs reserves their memory for each connection.
CONTEXT = 2_048
NORMAL_TOKEN = 1


def main(source, folder):
    folder = pathlib.Path(folder)
    model = Gguf(source)
    places = Places(model.tokens)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"writing the weights of {model.layers} layers", flush=True)
    with open(folder / "model.lmrs", "wb") as out:
        write_model(model, places.tokens, out)
    with open(folder / "tokenizer.bin", "wb") as out:
        write_tokenizer(model, places, out)
    size = (folder / "model.lmrs").stat().st_size
    print(json.dumps({"format": "lm.rs Q8_0", "bits_per_weight": 8 * size / model.weights}))


class Gguf:
    """The model as it comes."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.fields = reader.fields
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        family = self.field("general.architecture")
        if family != "llama":
            sys.exit(f"{path} is of the family {family}; lm.rs takes `llama` from here")
        if self.field("tokenizer.ggml.model") != "gpt2":
            sys.exit(f"{path} has a tokenizer that lm.rs's format cannot hold: byte-level BPE is taken")
        if "output.weight" in self.tensors:
            sys.exit(f"{path} has an output matrix of its own; lm.rs takes the embeddings for it")
        self.tokens = self.field("tokenizer.ggml.tokens")
        self.kinds = self.field("tokenizer.ggml.token_type")
        self.merges = self.field("tokenizer.ggml.merges")
        self.width = self.field("llama.embedding_length")
        self.inner = self.field("llama.feed_forward_length")
        self.layers = self.field("llama.block_count")
        self.heads = self.field("llama.attention.head_count")
        self.kv_heads = self.field("llama.attention.head_count_kv")
        self.head_width = self.width // self.heads
        self.epsilon = self.field("llama.attention.layer_norm_rms_epsilon")
        self.rope_base = self.field("llama.rope.freq_base")
        self.context = min(self.field("llama.context_length"), CONTEXT)
        self.weights = sum(int(numpy.prod(tensor.shape)) for tensor in reader.tensors)

    def field(self, name):
        return self.fields[name].contents()

    def tensor(self, name):
        tensor = self.tensors[name]
        return dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)

    def rotated(self, name, heads):
        """A matrix whose rows go through the rotary embedding. GGUF has the pairs of a head side by side, lm.rs, as the
        model was trained, in its two halves."""
        matrix = self.tensor(name)
        rows, columns = matrix.shape
        pairs = matrix.reshape(heads, rows // heads // 2, 2, columns)
        return pairs.swapaxes(1, 2).reshape(rows, columns)


class Places:
    """Which token stands at which number."""

    def __init__(self, names):
        self.number = {name: number for number, name in enumerate(names)}
        size = max(VOCABULARY, len(names))
        if names[HEADER:HEADER + 1] == ["<|start_header_id|>"]:
            self.tokens = list(range(len(names)))
            return
        missing = [name for name in ("<|im_start|>", "<|im_end|>", "user", "system") if name not in self.number]
        if missing:
            sys.exit(f"the model's chat template is not known: there is no token {missing[0]}")
        fixed = self.fixed()
        taken = set(fixed.values())
        self.tokens = [None] * size
        moved = []
        for token in range(len(names)):
            if token in taken:
                continue
            if token in fixed:
                moved.append(token)
            else:
                self.tokens[token] = token
        for place, token in fixed.items():
            self.tokens[place] = token
        free = (place for place in range(size) if self.tokens[place] is None)
        for token, place in zip(moved, list(free)):
            self.tokens[place] = token

    def fixed(self):
        """What lm.rs writes by number, as near to `<|im_start|>user NEWLINE ... <|im_end|>` as its own template allows."""
        names = dict(zip(MESSAGE, WORDS))
        names |= {FIRST_BYTE + byte: letter for byte, letter in enumerate(alphabet())}
        names |= {BEGIN: "<|im_start|>", HEADER: "<|im_start|>", HEADER_END: "Ċ", NEWLINES: "Ċ", TURN_END: "<|im_end|>",
                  SYSTEM: "system", USER: "user", ASSISTANT: "ass"}
        return {place: self.number[name] for place, name in names.items() if name in self.number}


def alphabet():
    """The letter that stands for each byte in byte-level BPE."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]


def group_size(*widths):
    """Weights that share a scale: as many as lm.rs's own exporter takes, or as divide every row."""
    return next(size for size in (128, 64, 32, 16, 8) if all(width % size == 0 for width in widths))


def quantised(matrix, group):
    """Bytes of Q8_0 in lm.rs's order: all values, then all scales."""
    groups = matrix.reshape(-1, group)
    scales = numpy.abs(groups).max(axis=1) / 127
    scales[scales == 0] = 1
    values = numpy.rint(groups / scales[:, None]).astype(numpy.int8)
    return values.tobytes() + scales.astype("<f4").tobytes()


def write_model(model, tokens, out):
    group = group_size(model.width, model.inner, model.heads * model.head_width)
    out.write(b"lmrs" + struct.pack("<I", 4))
    out.write(struct.pack("<8I2f", model.width, model.inner, model.layers, model.heads, model.head_width, model.kv_heads,
                          len(tokens), model.context, model.epsilon, model.rope_base))
    out.write(struct.pack("<2BIB", Q8_0, LLAMA, group, 0))
    out.write(bytes(256 - out.tell()))
    embeddings = numpy.zeros((len(tokens), model.width), numpy.float32)
    known = [place for place, token in enumerate(tokens) if token is not None]
    embeddings[known] = model.tensor("token_embd.weight")[[tokens[place] for place in known]]
    out.write(quantised(embeddings, group))

    def each(write):
        for layer in range(model.layers):
            write(f"blk.{layer}.")

    plain = lambda name: each(lambda layer: out.write(model.tensor(f"{layer}{name}.weight").astype("<f4").tobytes()))
    matrix = lambda name: each(lambda layer: out.write(quantised(model.tensor(f"{layer}{name}.weight"), group)))
    rotated = lambda name, heads: each(
        lambda layer: out.write(quantised(model.rotated(f"{layer}{name}.weight", heads), group)))
    plain("attn_norm")
    rotated("attn_q", model.heads)
    rotated("attn_k", model.kv_heads)
    matrix("attn_v")
    matrix("attn_output")
    plain("ffn_norm")
    for name in ("ffn_gate", "ffn_down", "ffn_up"):
        matrix(name)
    out.write(model.tensor("output_norm.weight").astype("<f4").tobytes())


def write_tokenizer(model, places, out):
    bytes_of = {letter: byte for byte, letter in enumerate(alphabet())}
    # lm.rs joins the pair of the best score first, BPE the one of the first merge.
    rank = {merge.replace(" ", "", 1): number for number, merge in enumerate(model.merges)}
    out.write(struct.pack("<4I", len(places.tokens), 64, BEGIN, TURN_END))
    for place, token in enumerate(places.tokens):
        if token is None:
            text, score = f"<unused {place}>", -1e9
        else:
            name = model.tokens[token]
            normal = model.kinds[token] == NORMAL_TOKEN
            raw = bytes(bytes_of[letter] for letter in name) if normal else name.encode()
            # lm.rs holds text only; a part of a character shows as a broken one.
            text, score = raw.decode(errors="replace"), -float(rank.get(name, len(rank)))
        raw = text.encode()
        out.write(struct.pack("<fI", score, len(raw)) + raw)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: convert.py MODEL.gguf FOLDER")
    main(*sys.argv[1:])
