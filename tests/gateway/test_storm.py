"""Replicas that die, stall and are full, clients that leave, routes that change, all at once: nothing is left over."""

import asyncio
import json
import random

import httpx
import pytest

from tests.gateway.replicas import KEY, Replica, Seen, Send, gateway, replicas, reply, route, until

pytestmark = pytest.mark.anyio

REQUESTS = 400


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_a_storm_nothing_is_left_and_every_answer_was_the_askers_own(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def stormy(replica: Replica, seen: Seen, send: Send) -> None:
        mine = json.loads(seen.body)["mine"]
        weather = rng.random()
        if weather < 0.04:
            replica.drop_connections()
            await asyncio.sleep(1)
        elif weather < 0.08:
            await reply(send, b"{}", status=503, headers={"retry-after": "1"})
        elif weather < 0.12:
            await reply(send, b"{}", status=500)
        elif weather < 0.3:
            head = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            for _ in range(3):
                event = b"data: " + json.dumps({"mine": mine, "choices": [1]}).encode() + b"\n\n"
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await asyncio.sleep(rng.random() * 0.02)
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        else:
            await asyncio.sleep(rng.random() * 0.05)
            await reply(send, json.dumps({"mine": mine, "replica": replica.run_id}).encode())

    async with replicas(4, stormy) as four:
        terms = {
            "concurrency": 4,
            "queue_most": 60,
            "timeout_s": 1.5,
            "balance": rng.choice(["least", "session"]),
        }
        every = [each.backend() for each in four]
        async with (
            gateway(route(*every, **terms)) as door,
            door.client(limits=httpx.Limits(max_connections=None)) as client,
        ):
            wrong: list[str] = []
            ends = {"answered": 0, "left": 0, "cut": 0}

            async def ask(number: int) -> None:
                await asyncio.sleep(rng.random() * 1.5)
                headers = {**KEY, "x-session-id": str(number % 7)}
                body = {"model": "tiny", "mine": number, "stream": rng.random() < 0.3}
                patience_s = 0.01 if rng.random() < 0.15 else 5.0
                try:
                    answer = await client.post(
                        "/v1/completions", json=body, headers=headers, timeout=patience_s
                    )
                except httpx.TimeoutException:
                    ends["left"] += 1
                    return
                except httpx.TransportError:
                    ends["cut"] += 1
                    return
                ends["answered"] += 1
                own, cut_short = f'"mine": {number}' in answer.text, '"error"' in answer.text
                if answer.status_code == 200 and not own and not cut_short:
                    wrong.append(answer.text)
                if answer.status_code not in (200, 500, 502, 503, 504):
                    wrong.append(f"{answer.status_code} {answer.text}")

            async def change() -> None:
                for _ in range(12):
                    await asyncio.sleep(0.12)
                    some = rng.sample(every, rng.randrange(1, 5))
                    door.hold(route(*some, **terms))
                door.hold(route(*every, **terms))

            await asyncio.gather(change(), *(ask(number) for number in range(REQUESTS)))
            lobby = door.app.door.lobbies["svc_chat"]
            await until(lambda: door.app.door.counts.under_way == 0)
            assert wrong == []
            assert ends["answered"] > REQUESTS // 4
            assert len(lobby.hold) == lobby.tally.present == lobby.tally.held == 0
            assert {desk.under_way for desk in lobby.desks.values()} == {0}
            # A client may leave before his first line was read: then there was no request.
            assert REQUESTS - ends["left"] <= len(door.journal.told) <= REQUESTS
            assert len(door.limits.settled) == len(door.journal.told)
            assert all(each.outcome != "served" or each.status < 500 for each in door.journal.told)
