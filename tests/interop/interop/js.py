"""js-libp2p: the peer `js/peer.mjs`, told what to do over its stdin."""

import json
import os
import select
import subprocess
from pathlib import Path

from bench import subjects
from bench.proc import Failed, await_end

# Longer than the peer itself gives each command.
DEADLINE_S = 15


class Install(subjects.Js):
    """The packages of `js/`, cached beside those of the benchmark."""

    source = Path(__file__).resolve().parent.parent / "js"
    program = "peer.mjs"
    cache = "js-dht"


class Peer:
    """A running peer; `mode` as in `peer.mjs`. On a link it has the link's address."""

    searches = True

    def __init__(self, install, mode, link=None):
        where = [*link.inside, install.node, install.program, mode, link.ip] if link else [install.node, install.program, mode]
        self.process = subprocess.Popen(
            where,
            bufsize=0,
            cwd=install.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.unread = b""
        try:
            hello = self._read()
        except Failed:
            self.stop()
            raise
        self.id = hello["id"]
        self.addr = hello["addrs"][0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.stdin.close()
        await_end(self.process)
        self.process.stdout.close()

    def connect(self, addr):
        """Connects to an address with /p2p; says what the connection was upgraded with."""
        return self._do("connect", addr=addr)

    def connections(self, peer):
        return self._do("connections", peer=peer)

    def identified(self, peer):
        """What the library learned by identify, or `None` yet."""
        return self._do("identified", peer=peer)

    def ping(self, peer):
        self._do("ping", peer=peer)

    def ask(self, peer, protocol, *messages):
        """Opens a stream, sends each message and reads the answer to it; without messages, reads one."""
        answers = self._do("ask", peer=peer, protocol=protocol, messages=[message.hex() for message in messages])
        return [bytes.fromhex(answer) for answer in answers]

    def ask_at_once(self, streams, peer, protocol, message):
        """The same message on several new streams; the answers."""
        answers = self._do("askAtOnce", streams=streams, peer=peer, protocol=protocol, messages=[message.hex()])
        return [bytes.fromhex(answer) for answer in answers]

    def discovered(self):
        """The peers that were heard of on the link, with addresses."""
        return self._do("discovered")

    def asked_by(self):
        """The peers that opened streams of Kademlia with it."""
        return set(self._do("askedBy"))

    def closest(self, key):
        """The library's own query for the peers closest to the key."""
        return {peer["id"]: peer["addrs"] for peer in self._do("closest", key=key.hex())}

    def get(self, key):
        """The library's own search for values, validated by it."""
        return [bytes.fromhex(value) for value in self._do("get", key=key.hex())]

    def providers(self, text):
        """The library's own search for the peers that announced the text."""
        return {peer["id"]: peer["addrs"] for peer in self._do("providers", text=text)}

    def provide(self, text):
        """Announces the text by the library; returns the peers that were told."""
        return set(self._do("provide", text=text))

    def hang_up(self, peer):
        self._do("hangUp", peer=peer)

    def _do(self, does, **args):
        try:
            self.process.stdin.write(json.dumps({"does": does, **args}).encode() + b"\n")
        except BrokenPipeError as error:
            raise Failed("the peer has ended") from error
        answer = self._read()
        if "failed" in answer:
            raise Failed(f"{does}: saw {answer['failed']}, expected an answer")
        return answer["done"]

    def _read(self):
        while b"\n" not in self.unread:
            if not select.select([self.process.stdout], [], [], DEADLINE_S)[0]:
                raise Failed(f"the peer did not answer within {DEADLINE_S} s")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise Failed("the peer has ended")
            self.unread += data
        line, self.unread = self.unread.split(b"\n", 1)
        return json.loads(line)
