#!/usr/bin/env python3
"""Drives `gpuctl serve` with real clients, with the box off at the start, and runs the lines of the API's page. See test-clients.sh."""

import argparse
import asyncio
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

import openai

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "crates/gpuctl-http/README.md"
POLICY = '[pool.gpu]\nqueue = "jobs"\nidle_stop = "20s"\n'
HEARD = "Ever tried, ever failed, no matter, try again, fail again, fail better."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--samples", type=pathlib.Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuctl-clients.") as folder:
        folder = pathlib.Path(folder)
        (folder / "gpuctl.toml").write_text(POLICY)
        shutil.copy(given.samples / "beckett.wav", folder)
        command = [given.programs / "gpuctl", "serve", "--address", "127.0.0.1:0"]
        server = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        try:
            address = listening(server)
            failed = [name for name, test in tests(address, folder) if not passes(name, test)]
        finally:
            server.terminate()
            server.wait()
            subprocess.run([given.programs / "gpuctl", "stop-all", "--wait"], cwd=folder, check=False, capture_output=True)
    return 1 if failed else 0


def listening(server) -> str:
    for line in server.stderr:
        found = re.search(r"listening on http://(\S+)", line)
        if found:
            return found[1]
    raise SystemExit("error: the server ended")


def passes(name, test) -> bool:
    try:
        test()
    except Exception as error:  # noqa: BLE001 - any failure of a client is a result
        print(f"FAILED {name}: {type(error).__name__}: {error}")
        return False
    print(f"passed {name}")
    return True


def tests(address, folder):
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
    sound = folder / "beckett.wav"

    def transcribe(**more):
        with open(sound, "rb") as file:
            return client.audio.transcriptions.create(model="whisper-1", file=file, **more)

    yield "openai: transcription on a box that is off", lambda: equal(transcribe().text, HEARD)
    yield "openai: text", lambda: equal(transcribe(response_format="text").strip(), HEARD)
    yield "openai: verbose_json", lambda: equal(transcribe(response_format="verbose_json").segments[0].start >= 0, True)
    yield "openai: srt", lambda: equal(transcribe(response_format="srt").startswith("1\n00:00:0"), True)
    yield "openai: stream", lambda: equal([event.type for event in transcribe(stream=True)][-1], "transcript.text.done")
    yield "openai: embeddings", lambda: embeddings(client)
    yield "openai: speech", lambda: speech(client)
    yield "openai: aac is refused", lambda: refused(client)
    yield "openai: models", lambda: equal("moonshine-tiny-en" in [model.id for model in client.models.list()], True)
    for language, block in re.findall(r"```(python|js)\n(.*?)```", PAGE.read_text(), re.S):
        block = block.replace("127.0.0.1:8686", address)
        title = f"the page's {language}: {block.strip().splitlines()[0]}"
        yield title, lambda block=block, language=language: snippet(language, block, folder)


def embeddings(client):
    found = client.embeddings.create(model="text-embedding-3-small", input=["a cat", "a dog"])
    equal([len(one.embedding) for one in found.data], [384, 384])
    plain = client.embeddings.create(model="text-embedding-3-small", input="a cat", encoding_format="float")
    assert all(abs(a - b) < 1e-6 for a, b in zip(plain.data[0].embedding, found.data[0].embedding))


def speech(client):
    said = {}
    for name in ["mp3", "opus", "flac", "wav", "pcm"]:
        said[name] = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there.", response_format=name).content
    plain = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there.").content
    equal((plain == said["mp3"], plain[0], said["wav"][:4], said["opus"][:4], said["flac"][:4]), (True, 255, b"RIFF", b"OggS", b"fLaC"))


def refused(client):
    try:
        client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.", response_format="aac")
    except openai.BadRequestError as error:
        return equal(error.code, "unsupported_format")
    raise AssertionError("it was taken")


def snippet(language, block, folder):
    if language == "js":
        file = folder / "page.mjs"
        file.write_text(block)
        subprocess.run(["node", file], cwd=folder, check=True, capture_output=True, text=True)
        return
    # The file that it opens is in this folder.
    block = block.replace('"beckett.wav"', repr(str(folder / "beckett.wav")))
    code = f"async def run():\n{textwrap.indent(block, '    ')}"
    scope = {}
    exec(code, scope)  # the page's own lines
    asyncio.run(scope["run"]())


def equal(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


if __name__ == "__main__":
    sys.exit(main())
