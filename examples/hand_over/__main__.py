"""Two agents hand work to each other through a store: a planner in asyncio, a researcher in Lua, killed midway.

    python examples/hand_over [--store FILE] [--questions 60] [--kills 2]

The planner asks questions (keys `question:N`) and waits for answers; the researcher watches for questions, thinks, and
answers (`answer:N`). Each watches what the other writes, under a name: the store keeps how far each has come, so that
neither misses anything while it is gone. The researcher is killed with SIGKILL while it works and started again: a
question that it had not finished is told again, and `if_version` makes sure that every question has one answer,
whoever is told what twice.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from llmspell_state.aio import State

HERE = Path(__file__).resolve().parent
LUA = next((lua for lua in ("lua5.4", "luajit", "lua5.3", "lua5.1") if shutil.which(lua)), None)
THINKING = 0.002  # seconds in which a model would think


async def research(store: Path, kills: asyncio.Queue[None]) -> int:
    """Keeps a researcher running until it is done; kills it whenever it is told to. Says how many it took."""
    started = 0
    while True:
        started += 1
        worker = await asyncio.create_subprocess_exec(LUA, str(HERE / "researcher.lua"), str(store))
        ended = asyncio.create_task(worker.wait())
        told = asyncio.create_task(kills.get())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            worker.kill()
            await ended
            continue
        told.cancel()
        if ended.result() != 0:
            raise SystemExit(f"the researcher ended with status {ended.result()}")
        return started


async def ask(state: State, questions: int) -> None:
    """Asks one question after the other, thinking in between."""
    for number in range(questions):
        await asyncio.sleep(THINKING)
        await state.set(f"question:{number:04}", {"text": f"What is {number} times {number}?", "number": number})


async def listen(state: State, questions: int, kills: asyncio.Queue[None], deaths: int) -> dict[str, int]:
    """Takes answers until there is one to every question, and has the researcher killed now and then."""
    answers: dict[str, int] = {}
    every = questions // (deaths + 1)
    async with state.watch("answer:*", name="planner") as watch:
        async for change in watch:
            if change.operation != "set":
                continue  # what an earlier conversation has left is cleared away
            if change.key in answers:
                raise SystemExit(f"{change.key} was answered twice")
            answers[change.key] = change.value["square"]
            if len(answers) == questions:
                return answers
            if deaths and len(answers) % every == 0:
                deaths -= 1
                kills.put_nowait(None)
    raise SystemExit("the watch ended before the last answer")


async def plan(store: Path, questions: int, deaths: int) -> None:
    """The whole conversation."""
    kills: asyncio.Queue[None] = asyncio.Queue()
    async with State(store, actor="planner") as state:
        since = await state.version()
        await state.clear()
        researcher = asyncio.create_task(research(store, kills))
        listener = asyncio.create_task(listen(state, questions, kills, deaths))
        await ask(state, questions)
        answers = await listener
        await state.set("enough", True)
        started = await researcher
        for number in range(questions):
            if answers[f"answer:{number:04}"] != number * number:
                raise SystemExit(f"question {number} has a wrong answer")
        async with state.watch("answer:*", since=since) as watch:
            while (change := await watch.next(timeout=0)) is not None:
                if change.operation == "set" and change.actor != "researcher":
                    raise SystemExit(f"{change.key} was not written by the researcher")
    print(f"{questions} questions, {len(answers)} answers, each once; the researcher was started {started} times")


def main() -> None:
    parser = argparse.ArgumentParser(prog="hand_over", description=__doc__.split("\n")[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--kills", type=int, default=2)
    options = parser.parse_args()
    if LUA is None:
        sys.exit("no Lua interpreter found")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(plan(options.store or Path(folder, "agents.db"), options.questions, options.kills))


if __name__ == "__main__":
    main()
