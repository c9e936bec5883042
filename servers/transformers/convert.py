"""A GGUF as a folder of float32 safetensors: the exact values of its weights, its tokenizer and its chat template."""

import json
import math
import os
import pathlib
import struct
import sys

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

# Kinds of pre-tokenizer that take each digit by itself, which the reading of a GGUF leaves out.
SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r"}


def main():
    file, out = sys.argv[1], pathlib.Path(sys.argv[2])
    folder, name = os.path.split(file)
    print("reading the tokenizer", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    split_digits(file, tokenizer.backend_tokenizer)
    print("reading the weights", flush=True)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # It is saved as if it never had been quantised.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # Without these, the server decodes greedily whatever temperature a request names, or samples of 50 tokens at most.
    model.generation_config.do_sample = True
    model.generation_config.top_k = 0
    print("writing", flush=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(json.dumps({"format": "safetensors float32", "bits_per_weight": bits_per_weight(out)}))


def split_digits(file, tokenizer):
    kind = GGUFReader(file).get_field("tokenizer.ggml.pre")
    if kind and kind.contents() in SINGLE_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, tokenizer.pre_tokenizer])


def bits_per_weight(folder):
    """Of the tensors in the folder, as the heads of its files have them."""
    weights = bytes_ = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            head = json.loads(opened.read(length))
        for name, tensor in head.items():
            if name != "__metadata__":
                weights += math.prod(tensor["shape"])
                bytes_ += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    return 8 * bytes_ / weights


if __name__ == "__main__":
    main()
