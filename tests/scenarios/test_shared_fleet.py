"""Two tenants with quotas, a big gang, spot runs and a maintenance window share 64 simulated accelerators."""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from baseai.finance.bucket import Bucket
from baseai.finance.hours.sum import TimeBy
from baseai.ground.clock import hour_of
from baseai.scheduling.queues.setting import Setting
from baseai.truth.embedded import Embedded
from baseai.truth.session import Scope
from baseai.workloads.burn import KIND as BURN_IN
from tests.scenarios.stage import DAWN, MODEL, Stage, stage

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]
OPERATOR = Scope(tenant_id=None, actor="ana")

# At so many hours and minutes after dawn an operator or a tenant does this. A run takes whole nodes of 8 accelerators,
# has so much work, and may last so long.
SCRIPT = """
0:00  join     n1 n2 n3 n4 n5 n6 n7 n8
0:20  queue    research of acme, quota 32
0:20  queue    serving of globex, quota 32
0:21  run      a1 of acme: 1 node for 110m, at most 120m, queue: research
0:21  run      a2 of acme: 1 node for 110m, at most 120m, queue: research
0:21  run      a3 of acme: 1 node for 140m, at most 150m, queue: research
0:21  run      a4 of acme: 1 node for 140m, at most 150m, queue: research
0:21  run      a5 of acme: 1 node for 220m, at most 240m, queue: research
0:21  run      a6 of acme: 1 node for 300m, at most 320m, queue: research
0:25  run      c1 of acme: 1 node for 900m, at most 960m, spot: true
0:25  run      c2 of acme: 1 node for 900m, at most 960m, spot: true
0:40  run      g1 of globex: 1 node for 80m, at most 90m, queue: serving
0:40  run      g2 of globex: 1 node for 80m, at most 90m, queue: serving
0:40  run      g3 of globex: 1 node for 20m, at most 90m, queue: serving
1:20  run      big of globex: 6 nodes for 40m, at most 60m, queue: serving
1:25  run      small of acme: 1 node for 15m, at most 20m
1:26  run      long of acme: 1 node for 170m, at most 180m
2:55  window   n1 n5 from 3:30 to 3:50, notice 30m
3:00  reserve  exam for globex: 2 nodes from 5:00 to 6:00
4:05  run      wide of acme: 4 nodes for 100m, at most 240m
4:10  run      late of acme: 1 node for 20m, at most 180m
4:30  run      own of globex: 2 nodes for 30m, at most 50m, reservation: exam
6:10  end
"""
# What becomes of it; of one minute, in any order.
STORY = """
0:05  n1 admit
0:05  n2 admit
0:05  n3 admit
0:05  n4 admit
0:05  n5 admit
0:05  n6 admit
0:05  n7 admit
0:05  n8 admit
0:21  a1 starts: in_turn
0:21  a2 starts: in_turn
0:21  a3 starts: in_turn
0:21  a4 starts: in_turn
0:21  a5 starts: in_turn
0:21  a6 starts: in_turn
0:25  c1 starts: spot
0:25  c2 starts: spot
0:40  c2 is to make way for g1
0:40  c2 has saved and waits again
0:40  g1 starts: in_turn
0:40  c1 is to make way for g2
0:40  c1 has saved and waits again
0:40  g2 starts: in_turn
0:40  a6 is to make way for g3
0:41  a6 has saved and waits again
0:41  g3 starts: in_turn
1:01  g3 is done
1:01  a6 starts: in_turn
2:00  g1 is done
2:00  small starts: backfill
2:00  g2 is done
2:11  a1 is done
2:11  a2 is done
2:15  small is done
2:41  a3 is done
2:41  a4 is done
2:41  big starts: in_turn
3:21  big is done
3:21  long starts: in_turn
3:21  c1 starts: spot
3:21  c2 starts: spot
3:29  n5 drain
3:29  a5 has saved and waits again
3:29  a5 starts: in_turn
3:30  n1 drain
3:30  n1 repair
3:30  n5 repair
3:50  n1 verify
3:50  n5 verify
3:55  n1 admit
3:55  n5 admit
4:01  a5 is done
4:05  wide starts: in_turn
4:58  c1 is to make way for what is reserved
4:58  c2 is to make way for what is reserved
4:59  c2 has saved and waits again
4:59  c1 has saved and waits again
5:00  own starts: reserved
5:30  own is done
5:30  c1 starts: spot
5:41  a6 is done
5:41  late starts: in_turn
5:41  c2 starts: spot
5:45  wide is done
6:01  late is done
"""


class Play:
    """The script as it is played, and what holds at every moment of it."""

    def __init__(self, one: Stage) -> None:
        self.stage = one
        self.promised: dict[
            str, str
        ] = {}  # by run, by when it was told to start at the latest, whenever it was
        self.held_behind: dict[str, set[str]] = defaultdict(set)
        self.most: Counter[str] = Counter()  # accelerators that each queue held at once

    async def play(self, script: str) -> None:
        for line in script.strip().splitlines():
            when, verb, what = _parts(r"(\S+)\s+(\w+)\s*(.*)", line)
            async for _ in self.stage.until(when):
                await self.check()
            await getattr(self, f"_{verb}")(what)

    # ---- what the script says

    async def _join(self, what: str) -> None:
        for name in what.split():
            await self.stage.join(name)

    async def _queue(self, what: str) -> None:
        name, tenant, quota = _parts(r"(\w+) of (\w+), quota (\d+)", what)
        setting = Setting(tenant=tenant, quota={MODEL: int(quota)})
        await self.stage.rooms.queues.set(name, setting, actor="ana")

    async def _run(self, what: str) -> None:
        name, tenant, nodes, needs, most, more = _parts(
            r"(\w+) of (\w+): (\d+) nodes? for (\d+)m, at most (\d+)m(?:, (.*))?", what
        )
        spec = (
            f"type: task\nname: {name}\nnodes: {nodes}\nresources: {{gpu: 'H100:8'}}\ncommands: [work]\n"
            f"max_duration: {most}m\n{more or ''}\n"
        )
        await self.stage.submit(tenant, spec, timedelta(minutes=int(needs)))

    async def _window(self, what: str) -> None:
        nodes, since, until, notice = _parts(r"(.*) from (\S+) to (\S+), notice (\d+)m", what)
        await self.stage.rooms.windows.plan(
            nodes=nodes.split(), site=None, from_at=self.stage.clock(since), until_at=self.stage.clock(until),
            why="new fans", notice_s=int(notice) * 60, actor="ana",
        )  # fmt: skip
        self.stage.begins += [self.stage.clock(since), self.stage.clock(until)]

    async def _reserve(self, what: str) -> None:
        name, tenant, nodes, since, until = _parts(r"(\w+) for (\w+): (\d+) nodes from (\S+) to (\S+)", what)
        project = await self.stage.rooms.tenancy.project(OPERATOR, tenant, None)
        await self.stage.rooms.reservations.reserve(
            OPERATOR, project, name=name, gpu="H100:8", nodes=int(nodes), site="local", take_or_pay=True,
            from_at=self.stage.clock(since), until_at=self.stage.clock(until),
        )  # fmt: skip
        self.stage.begins += [self.stage.clock(since), self.stage.clock(until)]

    async def _end(self, what: str) -> None:
        assert not what

    # ---- what holds at every moment

    async def check(self) -> None:
        await self._nobody_shares_an_accelerator()
        await self._everybody_who_waits_knows_why()
        await self._spot_goes_first()

    async def _nobody_shares_an_accelerator(self) -> None:
        held = await self.stage.rows(
            "SELECT la.accelerator_no, r.queue, r.spot, r.kind FROM leases l JOIN lease_accelerators la"
            " USING (lease_id) JOIN runs r USING (run_id) WHERE l.state <> 'released'"
        )
        assert len(held) == len({row["accelerator_no"] for row in held})
        queues = Counter(row["queue"] for row in held if not row["spot"] and row["kind"] != BURN_IN)
        self.most |= queues

    async def _everybody_who_waits_knows_why(self) -> None:
        waits = await self.stage.rows(
            "SELECT name, wait FROM runs WHERE state = 'queued' AND kind <> %s ORDER BY wait->'position'",
            BURN_IN,
        )
        assert [row["wait"]["position"] for row in waits] == [number + 1 for number in range(len(waits))]
        for row in waits:
            name, wait = row["name"], row["wait"]
            assert wait["ahead"] == sum(each["runs"] for each in wait["owners_ahead"]), row
            assert wait["sentence"].startswith("Waiting, "), row
            match wait["code"]:
                case "short":
                    assert sum(wait["failing"].values()) + wait["fitting"] == 8, row
                    assert wait["fitting"] < wait["needed"], row
                case "held":
                    self.held_behind[name].add(wait["behind"]["name"])
                case "booked":
                    assert wait["behind"]["name"] == "exam", row
                case code:
                    assert code == "clearing", row
            if wait["code"] in ("short", "held"):
                assert wait["estimate"] is not None, row
            if wait["code"] == "short" and wait["promised_at"] is not None:
                self.promised[name] = wait["promised_at"]

    async def _spot_goes_first(self) -> None:
        """Whenever somebody who pays is asked to go for another, no spot run is left."""
        evicted = {each.run_id for each in self.stage.plan.evictions}
        if not evicted:
            return
        stand = await self.stage.rows(
            "SELECT r.run_id, r.spot FROM runs r JOIN attempts a USING (run_id) WHERE a.state <> 'ended'"
            " AND r.kind <> %s AND (NOT a.stop OR r.run_id = ANY(%s))", BURN_IN, sorted(evicted),
        )  # fmt: skip
        if any(row["run_id"] in evicted and not row["spot"] for row in stand):
            assert all(row["run_id"] in evicted for row in stand if row["spot"])

    # ---- what is to be told of it afterwards

    async def story(self) -> list[str]:
        """What became of runs and nodes, a line each."""
        nodes = {machine.node_id: name for name, machine in self.stage.machines.items()}
        told = []
        for row in await self.stage.rows(
            "SELECT e.*, p.for_run, a.why->>'kind' AS how FROM events e"
            " LEFT JOIN preemptions p ON e.event = 'evict' AND p.run_id = e.subject_id AND p.asked_at = e.at"
            " LEFT JOIN attempts a ON e.event = 'grant' AND a.run_id = e.subject_id AND a.granted_at = e.at"
            " ORDER BY event_no"
        ):
            name = self.stage.names.get(row["subject_id"]) or nodes.get(row["subject_id"])
            if name is None:
                continue
            whom = self.stage.names.get(row["for_run"] or "", "what is reserved")
            saying = {
                "grant": f"starts: {row['how']}",
                "evict": f"is to make way for {whom}",
                "requeue": "has saved and waits again",
                "succeed": "is done",
            } | {event: event for event in ("drain", "repair", "verify", "admit")}
            if row["event"] in saying:
                told.append(f"{self.stage.told(row['at'])}  {name} {saying[row['event']]}")
        return told


@pytest.fixture
async def play(embedded: Embedded, tmp_path: Path) -> AsyncIterator[Play]:
    async with stage(embedded, tmp_path) as one:
        for tenant in ("acme", "globex"):
            await one.rooms.tenancy.make_tenant(tenant, actor="ana")
        yield Play(one)


async def test_a_shared_fleet(play: Play) -> None:
    await play.play(SCRIPT)
    assert sorted(await play.story()) == sorted(STORY.strip().splitlines())
    await quotas_lend_and_are_given_back(play)
    await who_was_promised_a_start_is_not_put_off(play)
    await nothing_runs_into_maintenance(play)
    await what_is_reserved_is_sold_as_spot_and_free_in_time(play)
    await all_work_is_done_once(play)
    await time_adds_up(play)


async def quotas_lend_and_are_given_back(play: Play) -> None:
    assert play.most["research"] == 48, "16 more than its quota, while nobody else wants them"
    [made_room] = await play.stage.rows(
        "SELECT p.*, o.queue AS lender FROM preemptions p JOIN runs r USING (run_id)"
        " JOIN runs o ON o.run_id = p.for_run WHERE NOT r.spot"
    )
    assert (play.stage.names[made_room["run_id"]], made_room["lender"]) == ("a6", "serving")
    assert made_room["saved_step"] > 1100
    assert made_room["lost_accelerator_s"] == 0.0


async def who_was_promised_a_start_is_not_put_off(play: Play) -> None:
    started = {row["name"]: row["at"] for row in await play.stage.rows(
        "SELECT r.name, max(a.granted_at) AS at FROM runs r JOIN attempts a USING (run_id) GROUP BY 1"
    )}  # fmt: skip
    assert {"a6", "big"} <= play.promised.keys()
    late = {name for name, at in play.promised.items() if started[name] > datetime.fromisoformat(at)}
    assert not late
    assert started["small"] < started["big"], "it is over before the gang can start"
    big = next(run_id for run_id, name in play.stage.names.items() if name == "big")
    assert play.held_behind["long"] == {big}
    assert play.held_behind["late"] == {"exam"}


async def nothing_runs_into_maintenance(play: Play) -> None:
    notice, begins, ends = (play.stage.clock(text) for text in ("3:00", "3:30", "3:50"))
    leases = await play.stage.rows(
        "SELECT l.*, n.name AS node FROM leases l JOIN nodes n USING (node_id) JOIN runs r USING (run_id)"
        " WHERE n.name IN ('n1', 'n5') AND r.kind <> %s", BURN_IN,
    )  # fmt: skip
    assert {lease["node"] for lease in leases} == {"n1", "n5"}
    for lease in leases:
        assert lease["released_at"] <= begins or lease["granted_at"] >= ends
        assert not notice <= lease["granted_at"] < begins < lease["ends_at"]
    tests = await play.stage.rows("SELECT occasion, verdict FROM burn_ins WHERE occasion <> 'joining'")
    assert tests == [{"occasion": "re_entry", "verdict": "passed"}] * 2


async def what_is_reserved_is_sold_as_spot_and_free_in_time(play: Play) -> None:
    begins = play.stage.clock("5:00")
    leases = await play.stage.rows(
        "SELECT r.name, l.* FROM leases l JOIN runs r USING (run_id) WHERE r.name IN ('own', 'c1', 'c2')"
    )
    own = [lease for lease in leases if lease["name"] == "own"]
    assert len(own) == 2
    for lease in own:
        assert timedelta() <= lease["granted_at"] - begins < timedelta(seconds=30)
        there = [each for each in leases if each["name"] != "own" and each["node_id"] == lease["node_id"]]
        gone = [each for each in there if each["released_at"] is not None]  # it may stand there again by now
        assert any(each["released_at"] <= begins < each["ends_at"] for each in gone), "a spot run made way"
    [reservation] = await play.stage.rows("SELECT state FROM reservations")
    assert reservation["state"] == "completed"


async def all_work_is_done_once(play: Play) -> None:
    """Who made way has saved, so that all its attempts together took what its work takes."""
    ended = await play.stage.rows(
        "SELECT r.run_id, sum(l.observed_until - l.observed_from) AS took FROM runs r"
        " JOIN leases l USING (run_id) WHERE r.state = 'succeeded' AND r.kind <> %s AND l.node_rank = 0 GROUP BY 1",
        BURN_IN,
    )  # fmt: skip
    assert len(ended) == 14, "all but the spot runs and the long one"
    for row in ended:
        assert row["took"] == play.stage.work[row["run_id"]].needs, play.stage.names[row["run_id"]]
    unsaid = await play.stage.rows(
        "SELECT r.name FROM attempts a JOIN runs r USING (run_id) WHERE r.kind <> %s AND a.why->>'kind' IS NULL",
        BURN_IN,
    )
    assert unsaid == []


async def time_adds_up(play: Play) -> None:
    one = play.stage
    await one.rooms.time.close()
    assert (await one.rooms.time.nightly()).failing == ()
    span = hour_of(DAWN), hour_of(one.at) + timedelta(hours=1)
    told = await one.rooms.time.told(*span, by=TimeBy.BUCKET, pace=None, simulated=True)
    assert told.withheld == ()
    spent = {row.bucket: row.micro_seconds for row in told.sums}
    [installed] = await one.rows("SELECT count(*), sum(now() - installed_at) AS time FROM accelerators")
    assert installed["count"] == 64
    assert sum(spent.values()) == installed["time"] / timedelta(microseconds=1)
    [leased] = await one.rows(
        "SELECT 8 * sum(coalesce(released_at, now()) - granted_at) AS time,"
        " 8 * sum(CASE WHEN r.spot THEN observed_until - observed_from END) AS spot"
        " FROM leases l JOIN runs r USING (run_id) WHERE r.kind <> %s", BURN_IN,
    )  # fmt: skip
    assert spent[Bucket.SPOT] == leased["spot"] / timedelta(microseconds=1)
    of_runs = (Bucket.ON_DEMAND, Bucket.RESERVED, Bucket.SPOT, Bucket.START_UP)
    assert sum(spent[bucket] for bucket in of_runs) == leased["time"] / timedelta(microseconds=1)
    assert spent[Bucket.RESERVED] == 2 * 8 * timedelta(minutes=30) / timedelta(microseconds=1)


def _parts(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text)
    assert found is not None, f"{text!r} is not understood"
    return found.groups()
