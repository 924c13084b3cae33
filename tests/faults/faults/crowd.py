#!/usr/bin/env python3
"""Strangers: connections to one address, in a process of their own.

usage: crowd.py HOST PORT KIND NUMBER SECONDS

  hold    NUMBER connections are open for SECONDS, and say nothing
  knock   NUMBER connections a second, for SECONDS, each closed at once
  noise   the same, and each asks for Noise, sends half a handshake and waits for two seconds
  drip    NUMBER connections that send one byte of a beginning each second, for SECONDS; what they send is PREFIXES' turn

It prints one line of JSON: how many were opened, refused, and closed by the other side.
"""

import asyncio
import json
import sys

HOST, PORT, KIND, NUMBER, SECONDS = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
MULTISTREAM = b"\x13/multistream/1.0.0\n"
NOISE = MULTISTREAM + b"\x07/noise\n"
# A length of 32, of which less comes: a public key.
HALF = NOISE + b"\x00\x20" + bytes(9)
PREFIXES = (MULTISTREAM, NOISE[:24], HALF, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 400, b"\x02\x00" + bytes(400))
seen = {"opened": 0, "refused": 0, "closed": 0}


async def one(index):
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, PORT), 5)
    except (OSError, asyncio.TimeoutError):
        seen["refused"] += 1
        return
    seen["opened"] += 1
    try:
        if KIND == "noise":
            writer.write(HALF)
            await asyncio.wait_for(ended(reader), 2)
        elif KIND == "hold":
            await asyncio.wait_for(ended(reader), SECONDS)
        elif KIND == "drip":
            prefix = PREFIXES[index % len(PREFIXES)]
            end = asyncio.ensure_future(ended(reader))
            for byte in prefix[: int(SECONDS)]:
                writer.write(bytes([byte]))
                if await asyncio.wait({end}, timeout=1) != (set(), {end}):
                    break
            await asyncio.wait_for(end, 1)
    except asyncio.TimeoutError:
        return
    except OSError:
        seen["closed"] += 1
    finally:
        writer.close()


async def ended(reader):
    while await reader.read(4096):
        pass
    seen["closed"] += 1


async def main():
    loop, tasks = asyncio.get_running_loop(), set()
    begin = loop.time()
    many = NUMBER if KIND in ("hold", "drip") else int(NUMBER * SECONDS)
    for index in range(many):
        tasks.add(task := asyncio.ensure_future(one(index)))
        task.add_done_callback(tasks.discard)
        if KIND in ("knock", "noise"):
            await asyncio.sleep(max(0, begin + index / NUMBER - loop.time()))
        elif index % 20 == 0:
            await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    print(json.dumps(seen))


asyncio.run(main())
