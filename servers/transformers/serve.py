"""`transformers serve`, told in the words that recipes use."""

import argparse
import math
import os
import sys

# Tokens in a page of the paged cache: its own default.
PAGE = 256
# The scheduler starts no sequence where fewer than 15 % of the pages are free; a quarter more leave that much.
SPARE = 1.25
# Rows of a step on a CPU; its own default, 8192, takes as many rows of attention mask.
CPU_ROWS = 512


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True, help="sequences at once, with --continuous-batching")
    parser.add_argument("--context", type=int, required=True, help="tokens of each, with --continuous-batching")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16; auto: as in the model's files")
    parser.add_argument("--continuous-batching", action="store_true")
    return parser.parse_known_args()


def command(args, more, accelerated):
    words = ["serve", args.model, "--host", args.host, "--port", args.port]
    words += ["--device", args.device, "--dtype", args.dtype]
    if args.continuous_batching:
        pages = math.ceil(SPARE * args.parallel * math.ceil(args.context / PAGE))
        words += ["--continuous-batching", "--cb-num-blocks", str(pages)]
        if not accelerated:
            words += ["--cb-max-batch-tokens", str(max(CPU_ROWS, args.parallel))]
    return words + more


def main():
    args, more = arguments()
    # The model is a folder; nobody is to be asked for anything.
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    import torch
    import transformers
    from transformers.cli.transformers import main as transformers_main

    torch.set_num_threads(args.threads)
    cpu = args.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    words = command(args, more, accelerated=not cpu)
    print("transformers", transformers.__version__, "torch", torch.__version__, "threads", torch.get_num_threads())
    print("transformers", *words, flush=True)
    sys.argv = ["transformers", *words]
    transformers_main()


if __name__ == "__main__":
    main()
