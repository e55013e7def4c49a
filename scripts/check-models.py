#!/usr/bin/env python3
"""Compare gpu-worker with the programs that models come from, on models that users bring.

Run by scripts/check-models.sh, which installs what it needs. Models with seeded random weights are built from transformers' own
configurations and exported as users do; of one Whisper (tiny.en) the real weights are used. Prints a line for each comparison, and ends
with 1 if one differs.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "models"))

from PIL import Image

import picture_models as pictures
import speech_models as speech
import text_models as texts
from comparison import Report, Worker

OPSETS = (18, 23)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worker", type=Path, required=True, help="the program gpu-worker")
    parser.add_argument("--cache", type=Path, required=True, help="gpuctl's cache, with models and samples")
    parser.add_argument("--only", nargs="*", default=["distilbert", "e5", "siglip2", "sam2", "whisper"], help="default: %(default)s")
    parser.add_argument("--opset", nargs="*", type=int, default=OPSETS, help="default: %(default)s")
    arguments = parser.parse_args()
    samples, report = arguments.cache / "samples", Report()
    with tempfile.TemporaryDirectory(prefix="check-models-") as folder:
        models = Path(folder)
        for name in ("silero-vad-v6", "dvector-voicefilter"):
            (models / name).symlink_to(arguments.cache / "models" / name)
        worker, shown = Worker(arguments.worker, models), made_pictures(samples, models)
        spoken = [samples / "beckett.wav", samples / "two_cities.wav"]
        checks = {
            "distilbert": lambda opset: texts.check_distilbert(models, opset, worker, report),
            "e5": lambda opset: texts.check_e5(models, opset, worker, report),
            "siglip2": lambda opset: pictures.check_siglip(models, opset, worker, report, shown),
            "sam2": lambda opset: pictures.check_sam2(models, opset, worker, report, shown),
            "whisper": lambda opset: speech.check(models, opset, worker, report, spoken),
        }
        for name in arguments.only:
            for opset in arguments.opset:
                checks[name](opset)
    print("all agree" if not report.failed else f"{report.failed} differ")
    return report.failed > 0


def made_pictures(samples, folder):
    """A photograph, and parts of it that are wide, tall and small."""
    photograph = Image.open(samples / "astronaut.png").convert("RGB")
    boxes = {"wide": (0, 100, 512, 230), "tall": (200, 0, 290, 512), "small": (220, 60, 251, 97)}
    shown = [samples / "astronaut.png"]
    for name, box in boxes.items():
        shown.append(folder / f"{name}.png")
        photograph.crop(box).save(shown[-1])
    return shown


if __name__ == "__main__":
    sys.exit(main())
