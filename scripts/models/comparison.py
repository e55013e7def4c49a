"""What the parts of scripts/check-models.py share: exporting a graph, its manifest, and asking the worker."""

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

import torch

SEED = 20261130
ROOT = Path(__file__).resolve().parent.parent.parent


def seeded(make, *arguments):
    """A model with the same random weights each time, ready to be used."""
    torch.manual_seed(SEED)
    return make(*arguments).eval()


def made(folder):
    """The folder, which is there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def export(module, inputs, path, opset, input_names, output_names, shapes):
    """As users export: torch's own exporter, weights in the file."""
    with torch.no_grad():
        torch.onnx.export(
            module.eval(), inputs, str(path), input_names=input_names, output_names=output_names, dynamic_shapes=shapes,
            opset_version=opset, external_data=False, dynamo=True, verbose=False,
        )  # fmt: skip


def manifest(folder, family, task, files, settings=(), before=""):
    """`model.toml` with each file's size and hash."""
    lines = [f'name = "{folder.name}"', f'family = "{family}"', f'task = "{task}"', 'licence = "made by scripts/check-models.sh"']
    lines += ['precision = "fp32"', "max_batch = 8", "memory_mib = 1000", *([before] if before else [])]
    if settings:
        lines += ["", "[settings]", *settings]
    for role, path in files:
        content = (folder / path).read_bytes()
        lines += ["", "[[file]]", f'role = "{role}"', f'path = "{path}"']
        lines += [f'sha256 = "{hashlib.sha256(content).hexdigest()}"', f"size_bytes = {len(content)}"]
    (folder / "model.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Worker:
    """`gpu-worker run` with the folder of models."""

    def __init__(self, program, models):
        self.program, self.environment = program, dict(os.environ, GPUCTL_MODELS=str(models))

    def run(self, task, file, model, output=None, **params):
        command = [str(self.program), "run", task, str(file), "--model", model]
        if output:
            command += ["--output", str(output)]
        for name, value in params.items():
            command += ["--param", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"error: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def on_text(self, task, text, model, **params):
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            return self.run(task, file.name, model, **params)

    def embed(self, text, model, **params):
        return self.on_text("text.embed", text, model, **params)


class Report:
    """What agreed and what did not; a line each."""

    def __init__(self):
        self.failed = 0

    def line(self, agrees, name, figure):
        self.failed += not agrees
        print(f"{'agrees ' if agrees else 'DIFFERS'} {name}: {figure}", flush=True)

    def vectors(self, name, found, expected, least=0.999):
        found, expected = torch.tensor(found), torch.as_tensor(expected)
        cosine = torch.nn.functional.cosine_similarity(found, expected, dim=0).item()
        self.line(found.shape == expected.shape and cosine >= least, name, f"cosine {cosine:.6f}")

    def logits(self, name, found, expected, share=1e-3):
        found, expected = torch.tensor(found), torch.as_tensor(expected)
        width = (expected.max() - expected.min()).item()
        off = (found - expected).abs().max().item()
        self.line(off <= share * width, name, f"off by {off:.2e} of a range of {width:.3f}")

    def words(self, name, found, expected):
        ours, theirs = found.split(), expected.split()
        if ours == theirs:
            return self.line(True, name, f"{len(ours)} words")
        return self.line(False, name, f"\n  {found}\n  {expected}")
