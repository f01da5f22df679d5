"""CPU time of training all of a Whisper encoder on real speech: serfit beside two plain loops of transformers.

    uv run python benchmarks/speed/whisper.py EMODB ENCODER [--utterances 96] [--rounds 3] [--json FILE]

EMODB is the folder of EMO-DB with utterances.csv, ENCODER a folder of a pretrained Whisper in hub layout. Every row
trains on the same utterances once a round, in batches of 16: the encoder, mean pooling over the frames of the speech, a
head, the CCC loss, AdamW. The rows take turns, so that a busy machine is busy for all; what counts is the CPU time of
the process. The first loop fills every utterance up to 30 s, as transformers' forward asks; the second pads to the
longest of its batch, cuts the positions and calls the layers itself. Neither masks anything.
"""

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from serfit.config.schema import ModelParams
from serfit.corpus.audio import read_audio
from serfit.nn.losses import ccc_loss
from serfit.nn.model import Head, build_model
from serfit.training.batches import Example, plan_epoch
from serfit.training.executor import Executor

BATCH = 16
Work = Callable[[], None]


def speech(corpus: Path, count: int) -> list[Tensor]:
    """The first waveforms of a fixed order of the corpus."""
    with (corpus / "utterances.csv").open(newline="") as file:
        paths = [corpus / row["path"] for row in csv.DictReader(file)]
    order = np.random.default_rng(1).permutation(len(paths))[:count]
    return [torch.from_numpy(read_audio(paths[index])) for index in order]


def plain_loop(encoder: Path, sounds: list[Tensor], targets: Tensor, *, whole_windows: bool) -> Work:
    """A training loop around transformers' encoder and extractor."""
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(1)
    hf = WhisperEncoder(WhisperConfig.from_pretrained(encoder))
    tensors = load_file(encoder / "model.safetensors")
    hf.load_state_dict({key.removeprefix("model.encoder."): one.float() for key, one in tensors.items()})
    extractor = WhisperFeatureExtractor.from_pretrained(encoder)
    head = Head(hf.config.d_model, 256, 2, 0.2, "linear")
    trained = [one for one in [*hf.parameters(), *head.parameters()] if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-5)
    plan = plan_epoch([len(sound) for sound in sounds], BATCH, seed=1, epoch=1, bucketing=False)

    def encoded(features: Tensor) -> Tensor:
        if whole_windows:
            found: Tensor = hf(features).last_hidden_state
            return found
        hidden = F.gelu(hf.conv2(F.gelu(hf.conv1(features)))).transpose(1, 2)
        hidden = hidden + hf.embed_positions.weight[: hidden.shape[1]]
        for layer in hf.layers:
            hidden = layer(hidden, None)
        normed: Tensor = hf.layer_norm(hidden)
        return normed

    def work() -> None:
        for batch in plan:
            rows = [sounds[index].numpy() for index in batch]
            how = {} if whole_windows else {"padding": "longest"}
            features = extractor(rows, sampling_rate=16_000, return_tensors="pt", **how).input_features
            hidden = encoded(features)
            frames = torch.tensor([(len(row) // 160 + 1) // 2 for row in rows])
            valid = (torch.arange(hidden.shape[1]) < frames[:, None])[..., None]
            ccc_loss(head((hidden * valid).sum(1) / valid.sum(1)), targets[batch])[0].backward()
            optimizer.step()
            optimizer.zero_grad()

    return work


def ours(encoder: Path, sounds: list[Tensor], targets: Tensor) -> Work:
    """The same by serfit's executor, in batches of similar length, as is its default."""
    params: dict[str, Any] = {"pooling": "mean", "layers": "last", "freeze_cnn": False, "encoder_dropout": 0.0}
    model = build_model(ModelParams(speech_encoder=str(encoder), **params), 2, 1)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 1e-5, fused=True)
    executor = Executor(model, 0, torch.device("cpu"), nullcontext)
    plan = plan_epoch([len(sound) for sound in sounds], BATCH, seed=1, epoch=1, bucketing=True)

    def work() -> None:
        for batch in plan:
            examples = [Example(str(n), model.encoder.prepare(sounds[n]), targets[n], dropout_seed=n) for n in batch]
            executor.gradients(examples, lambda predictions, wanted: ccc_loss(predictions, wanted)[0])
            optimizer.step()

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--utterances", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sounds = speech(arguments.corpus, arguments.utterances)
    targets = torch.rand(len(sounds), 2, generator=torch.Generator().manual_seed(1))
    rows = {
        "transformers, 30 s": plain_loop(arguments.encoder, sounds, targets, whole_windows=True),
        "transformers, padded to the batch": plain_loop(arguments.encoder, sounds, targets, whole_windows=False),
        "serfit": ours(arguments.encoder, sounds, targets),
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.rounds):
        for name, work in rows.items():
            began = time.process_time()
            work()
            taken[name].append(time.process_time() - began)
    seconds = sum(len(sound) for sound in sounds) / 16_000
    print(f"{len(sounds)} utterances, {seconds:.0f} s of speech; CPU seconds of a round, median of {arguments.rounds}")
    least = statistics.median(taken["serfit"])
    for name, values in taken.items():
        middle = statistics.median(values)
        rounds = ", ".join(f"{one:.1f}" for one in values)
        print(f"{name:34} {middle:8.1f} s   {middle / least:5.2f} x serfit   ({rounds})")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(taken, indent=1))


if __name__ == "__main__":
    main()
