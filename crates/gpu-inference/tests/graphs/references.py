#!/usr/bin/env python3
"""What the models' own Python pre- and post-processing makes of a photograph, for the tests to compare with.

usage: references.py CACHE_FOLDER OUT_FOLDER

PIL's antialiased scaling is what the models were trained with. The mask is made as the package `rembg` does it.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def main():
    cache, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    photograph = Image.open(cache / "samples" / "astronaut.png").convert("RGB")
    for name, side, size in (("224", (224, 224), None), ("from-wide", (224, 224), (90, 40, 430, 170))):
        picture = photograph.crop(size) if size else photograph
        scaled = np.asarray(picture.resize(side, Image.BILINEAR), np.float32)
        planes = ((scaled / 255 - 0.5) / 0.5).transpose(2, 0, 1)
        np.save(out / f"siglip-{name}.npy", planes.astype(np.float32))
    bicubic = np.asarray(photograph.resize((256, 300), Image.BICUBIC))
    np.save(out / "bicubic.npy", bicubic)
    np.save(out / "mask.npy", mask(cache, photograph))


def mask(cache, photograph):
    scaled = np.asarray(photograph.resize((320, 320), Image.LANCZOS))
    planes = ((scaled / scaled.max() - MEAN) / DEVIATION).transpose(2, 0, 1)
    session = onnxruntime.InferenceSession(cache / "models" / "u2netp" / "u2netp.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: planes[None].astype(np.float32)})[0][0, 0]
    found = (found - found.min()) / (found.max() - found.min())
    grey = Image.fromarray((found * 255).astype(np.uint8))
    return np.asarray(grey.resize(photograph.size, Image.LANCZOS))


if __name__ == "__main__":
    main()
