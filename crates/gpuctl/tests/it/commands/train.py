"""A small network trained on data that it makes up, as trainings go: it saves where it is after each epoch, goes on from there, and
prints a line of JSON each time. While a file HOLD-EPOCH is in the folder of holds, it waits at that epoch."""

import argparse
import json
import os
import signal
import sys
import time

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--rate", type=float)
parser.add_argument("--holds", default="")
wanted = parser.parse_args()
output, checkpoints = os.environ["GPUCTL_OUTPUT_DIR"], os.environ["GPUCTL_CHECKPOINT_DIR"]
saved = os.path.join(checkpoints, "state.npz")
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))


def save(path, **arrays):
    """Under another name until it is whole: a checkpoint may be kept at any moment."""
    with open(path + ".tmp", "wb") as file:
        np.savez(file, **arrays)
    os.replace(path + ".tmp", path)


random = np.random.Generator(np.random.PCG64(1))
inputs = random.standard_normal((512, 32))
targets = np.sin(inputs @ random.standard_normal((32, 4)))
first, second = random.standard_normal((32, 64)) * 0.1, random.standard_normal((64, 4)) * 0.1
epoch = 0
if os.path.exists(saved):
    state = np.load(saved)
    first, second, epoch = state["first"], state["second"], int(state["epoch"])
    random.bit_generator.state = json.loads(str(state["random"]))
print(f"begins at epoch {epoch} with the key {os.environ.get('API_KEY', 'of nobody')}", file=sys.stderr, flush=True)

while epoch < wanted.epochs:
    while wanted.holds and os.path.exists(os.path.join(wanted.holds, f"hold-{epoch}")) and not told:
        time.sleep(0.02)
    if told:
        # As most trainings do: what it has is saved, and it ends as if all were well.
        sys.exit(0)
    order = random.permutation(len(inputs))
    for batch in order.reshape(-1, 32):
        hidden = np.tanh(inputs[batch] @ first)
        error = hidden @ second - targets[batch]
        change = (error @ second.T) * (1 - hidden**2)
        second -= wanted.rate * hidden.T @ error / 32
        first -= wanted.rate * inputs[batch].T @ change / 32
    epoch += 1
    loss = float(np.mean((np.tanh(inputs @ first) @ second - targets) ** 2))
    save(saved, first=first, second=second, epoch=epoch, random=json.dumps(random.bit_generator.state))
    print(json.dumps({"epoch": epoch, "loss": loss}), flush=True)

os.makedirs(os.path.join(output, "weights"))
np.save(os.path.join(output, "first.npy"), first)
np.save(os.path.join(output, "weights", "second.npy"), second)
