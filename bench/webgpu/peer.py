"""
The peer of bench/webgpu/models.ts: transformers' MambaForCausalLM and Mamba2ForCausalLM in PyTorch on the same GPU, random weights of the same shapes.

    python3 bench/webgpu/peer.py [--shapes A,B] [--dtypes float16,float32] [--seconds S] [--json FILE]

Decoding goes through the model's own cache, one forward a token, as `generate` does it without its bookkeeping; also as a CUDA graph of that forward where it
can be captured, which transformers does not do by itself. Without the packages mamba-ssm and causal-conv1d, and without the `kernels` package,
transformers takes its path of plain PyTorch operations: the report says what was there. Times are medians.
"""

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import sys
import time
import traceback

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM  # noqa: E402

VOCAB_SIZE = 50280
SHAPES = {
    "mamba-2.8b": ("mamba", 2560, 64),
    "mamba-1.4b": ("mamba", 2048, 48),
    "mamba2-2.7b": ("mamba2", 2560, 64),
    "mamba-130m": ("mamba", 768, 24),
    "tiny": ("mamba", 64, 2),
    "tiny2": ("mamba2", 64, 2),
}
PROMPTS = (512, 2048, 16384)
BATCHES = (1, 32)
LONGEST_SECONDS = 20


def create_model(shape, dtype, device):
    kind, d_model, n_layers = SHAPES[shape]
    common = dict(vocab_size=VOCAB_SIZE, hidden_size=d_model, num_hidden_layers=n_layers, tie_word_embeddings=True, initializer_range=0.02)
    if kind == "mamba":
        config, model_class = MambaConfig(**common), MambaForCausalLM
    else:
        config = Mamba2Config(**common, num_heads=d_model // 32, head_dim=64, n_groups=1, state_size=128)
        model_class = Mamba2ForCausalLM
    torch.manual_seed(1)
    with torch.device(device):
        model = model_class(config)
    return model.to(dtype).eval()


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(run, device):
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def weight_bytes(model):
    """Of what a token reads: the embedding is the head's matrix, too, and counted once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def bandwidth(device):
    """Bytes per second of a copy, read and written, and of a sum, which reads alone."""
    count = 2**28 if device == "cuda" else 2**22
    data = torch.ones(count, device=device)
    other = torch.empty_like(data)
    best = {}
    for name, run, moved in (("copy", lambda: other.copy_(data), 8), ("sum", lambda: data.sum(), 4)):
        run()
        best[name] = moved * count / min(seconds_of(lambda: [run() for _ in range(5)], device) / 5 for _ in range(5))
    return best


class Decoder:
    """A sequence of forwards of one token with the model's cache."""

    def __init__(self, model, batch, device):
        self.model, self.device = model, device
        self.ids = torch.randint(0, VOCAB_SIZE, (batch, 1), device=device)
        prompt = torch.randint(0, VOCAB_SIZE, (batch, 8), device=device)
        self.cache = model(prompt, use_cache=True, logits_to_keep=1).cache_params

    def step(self):
        return self.model(self.ids, cache_params=self.cache, use_cache=True, logits_to_keep=1).logits

    def measure(self, run):
        for _ in range(3):
            run()
        first = seconds_of(run, self.device)
        return statistics.median(seconds_of(run, self.device) for _ in range(max(3, min(30, int(2 / first)))))

    def eager_seconds(self):
        # As a caller has it who looks at each token's logits before the next.
        return self.measure(lambda: self.step().cpu())

    def graph_seconds(self):
        """The same forward as one CUDA graph, if it can be captured; its logits change from step to step as the cache does."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self.step()
        graph.replay()
        before = logits.clone()
        graph.replay()
        if torch.equal(before, logits) or not torch.isfinite(logits).all():
            raise RuntimeError("the captured forward does not move the cache")

        def run():
            graph.replay()
            return logits.cpu()

        return self.measure(run)


def prefill_seconds(model, n_tokens, device, most):
    ids = torch.randint(0, VOCAB_SIZE, (1, n_tokens), device=device)

    def run():
        model(ids, use_cache=True, logits_to_keep=1).logits.cpu()

    if n_tokens == PROMPTS[0]:
        run()
    times = [seconds_of(run, device)]
    while len(times) < 3 and sum(times) + times[0] < most and times[0] < 2:
        times.append(seconds_of(run, device))
    return statistics.median(times)


def measure_model(shape, dtype_name, device, report, left):
    model = create_model(shape, getattr(torch, dtype_name), device)
    bytes_of_token = weight_bytes(model)

    def add(kind, path, batch, tokens, seconds):
        row = dict(shape=shape, format=dtype_name, kind=kind, path=path, batch=batch, tokens=tokens, ms=1000 * seconds, tokensPerSecond=batch * tokens / seconds)
        if kind == "decode":
            row.update(weightBytes=bytes_of_token, ofBandwidth=bytes_of_token / seconds / report["bandwidth"]["sum"])
        report["rows"].append(row)
        part = f", {100 * row['ofBandwidth']:.0f} % of the bandwidth" if kind == "decode" else ""
        print(f"{shape} {dtype_name} {kind}, batch {batch}, tokens {tokens}, {path}: {row['tokensPerSecond']:.1f} tokens/s, {row['ms']:.3f} ms{part}", flush=True)

    for batch in BATCHES:
        decoder = Decoder(model, batch, device)
        if not torch.isfinite(decoder.step()).all():
            note(report, f"{shape} {dtype_name}: its logits are not finite, which changes no time")
        add("decode", "forward", batch, 1, decoder.eager_seconds())
        if device == "cuda" and report["graphs"]:
            try:
                add("decode", "CUDA graph of forward", batch, 1, decoder.graph_seconds())
            except Exception as error:
                # A failed capture can leave the allocator in a state in which everything after it fails.
                report["graphs"] = False
                note(report, f"{shape} {dtype_name} batch {batch}, CUDA graph: {error}")
        del decoder
    known = 0.0
    for tokens in PROMPTS:
        expected = known * tokens
        if expected > min(left(), LONGEST_SECONDS):
            note(report, f"{shape} {dtype_name}, a prompt of {tokens}: it would take {expected:.0f} s")
            continue
        try:
            seconds = prefill_seconds(model, tokens, device, left())
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            note(report, f"{shape} {dtype_name}, a prompt of {tokens}: out of memory")
            continue
        known = seconds / tokens
        add("prefill", "forward", 1, tokens, seconds)


def note(report, text):
    report["left"].append(text)
    print(f"not measured: {text}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="mamba-2.8b,mamba-1.4b,mamba2-2.7b,mamba-130m")
    parser.add_argument("--dtypes", default="float16,float32")
    parser.add_argument("--seconds", type=float, default=200, help="begin no model after it")
    parser.add_argument("--json")
    options = parser.parse_args()
    end = time.perf_counter() + options.seconds
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Plain float32 is what float32 is measured as: no TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    packages = {name: importlib.util.find_spec(name) is not None for name in ("mamba_ssm", "causal_conv1d", "kernels", "mambapy")}
    report = dict(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(), command=" ".join(sys.argv), torch=torch.__version__, transformers=transformers.__version__,
        adapter=torch.cuda.get_device_name() if device == "cuda" else "cpu", packages=packages,
        path="kernels of mamba-ssm" if packages["mamba_ssm"] else "plain PyTorch operations (no mamba-ssm)",
        bandwidth=bandwidth(device), graphs=True, rows=[], left=[],
    )
    print(f"{report['adapter']}, torch {report['torch']}, transformers {report['transformers']}, {packages}: {report['path']}; "
          f"copies {report['bandwidth']['copy'] / 1e9:.0f} GB/s, sums {report['bandwidth']['sum'] / 1e9:.0f} GB/s", flush=True)
    failed = False
    with torch.inference_mode():
        for dtype_name in options.dtypes.split(","):
            for shape in options.shapes.split(","):
                left = lambda: end - time.perf_counter()  # noqa: E731
                if left() < 10:
                    note(report, f"{shape} {dtype_name}: no time left")
                    continue
                try:
                    measure_model(shape, dtype_name, device, report, left)
                except Exception:
                    failed = True
                    note(report, f"{shape} {dtype_name}: {traceback.format_exc()}")
                if device == "cuda":
                    torch.cuda.empty_cache()
                if options.json:
                    with open(options.json, "w") as file:
                        json.dump(report, file, indent=2)
    sys.exit(1 if failed else 0)


main()
