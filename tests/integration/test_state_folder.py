"""Whatever a handler does to the supervisor's own folder, the next event is served.

With every permission it may write there, as the same user.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

SPOILS = """
const private_ = Deno.env.get("TMPDIR")!;
const state = private_.slice(0, private_.lastIndexOf("/"));
const root = state.slice(0, state.lastIndexOf("/"));
const entry = `${state}/entry.mjs`;
const all = { recursive: true };
// What is lent to processes is closed, to its own user too.
function open(path: string) {
  if (!Deno.lstatSync(path).isDirectory) return;
  Deno.chmodSync(path, 0o700);
  for (const { name } of Deno.readDirSync(path)) open(`${path}/${name}`);
}
function remove(path: string) {
  open(path);
  Deno.removeSync(path, all);
}
const ways: Record<string, () => void> = {
  "nothing": () => {},
  "entry-truncated": () => Deno.writeTextFileSync(entry, ""),
  "entry-other": () => Deno.writeTextFileSync(entry, "throw new Error('other')"),
  "entry-longer": () => Deno.writeTextFileSync(entry, "\\nnonsense", { append: true }),
  "entry-closed": () => Deno.chmodSync(entry, 0),
  "entry-removed": () => Deno.removeSync(entry),
  "entry-folder": () => {
    Deno.removeSync(entry);
    Deno.mkdirSync(`${entry}/deep/er`, all);
  },
  "entry-dead-link": () => {
    Deno.removeSync(entry);
    Deno.symlinkSync("/nowhere", entry);
  },
  "entry-link": () => {
    Deno.removeSync(entry);
    Deno.symlinkSync("/dev/zero", entry);
  },
  "entry-pipe": () => {
    Deno.removeSync(entry);
    new Deno.Command("mkfifo", { args: [entry] }).outputSync();
  },
  "closed": () => Deno.chmodSync(state, 0),
  "unwritable": () => Deno.chmodSync(state, 0o500),
  "emptied": () => {
    for (const { name } of Deno.readDirSync(state)) {
      remove(`${state}/${name}`);
    }
  },
  "removed": () => remove(state),
  "moved": () => Deno.renameSync(state, `${state}.moved${Date.now()}`),
  "file": () => {
    remove(state);
    Deno.writeTextFileSync(state, "x");
  },
  "dead-link": () => {
    remove(state);
    Deno.symlinkSync("/nowhere", state);
  },
  "link": () => {
    remove(state);
    Deno.symlinkSync(root, state);
  },
  "other-folder": () => {
    remove(state);
    Deno.mkdirSync(state, { mode: 0o777 });
  },
  "lock-removed": () => Deno.removeSync(`${state}/lock`),
  "lock-folder": () => {
    Deno.removeSync(`${state}/lock`);
    Deno.mkdirSync(`${state}/lock/deep`, all);
  },
  "lock-pipe": () => {
    Deno.removeSync(`${state}/lock`);
    new Deno.Command("mkfifo", { args: [`${state}/lock`] }).outputSync();
  },
  "lock-link": () => {
    Deno.removeSync(`${state}/lock`);
    Deno.symlinkSync(`${state}/lock`, `${state}/lock`);
  },
  "lock-held": () => {
    Deno.removeSync(`${state}/lock`);
    Deno.openSync(`${state}/lock`, { create: true, write: true }).lockSync(true);
  },
  "spare-removed": () => Deno.removeSync(`${state}/spare`, all),
  "spare-pipe": () => {
    Deno.removeSync(`${state}/spare`, all);
    new Deno.Command("mkfifo", { args: [`${state}/spare`] }).outputSync();
  },
  "spare-link": () => {
    Deno.removeSync(`${state}/spare`, all);
    Deno.symlinkSync(root, `${state}/spare`);
  },
  "around-closed": () => Deno.chmodSync(root, 0),
  "around-unwritable": () => Deno.chmodSync(root, 0o500),
  "cache-removed": () => remove(`${state}/deno_dir`),
  "cache-file": () => {
    remove(`${state}/deno_dir`);
    Deno.writeTextFileSync(`${state}/deno_dir`, "x");
  },
  "cache-pipe": () => {
    remove(`${state}/deno_dir`);
    new Deno.Command("mkfifo", { args: [`${state}/deno_dir`] }).outputSync();
  },
  "cache-link": () => {
    const other = `${Date.now()}`;
    Deno.renameSync(`${state}/deno_dir`, `${state}/${other}`);
    Deno.symlinkSync(other, `${state}/deno_dir`);
  },
  "cache-copy": () => {
    const other = `${Date.now()}`;
    Deno.renameSync(`${state}/deno_dir`, `${state}/${other}`);
    new Deno.Command("cp", { args: ["-a", other, "deno_dir"], cwd: state })
      .outputSync();
  },
  "cache-closed": () => Deno.chmodSync(`${state}/deno_dir`, 0),
  "cache-emptied": () => {
    for (const { name } of Deno.readDirSync(`${state}/deno_dir`)) {
      remove(`${state}/deno_dir/${name}`);
    }
  },
  "cache-spoilt": () => {
    const spoil = (folder: string) => {
      for (const { name, isDirectory, isFile } of Deno.readDirSync(folder)) {
        const path = `${folder}/${name}`;
        if (isDirectory) Deno.chmodSync(path, 0o700);
        if (isDirectory) spoil(path);
        if (isFile) Deno.chmodSync(path, 0o600);
        if (isFile) Deno.writeTextFileSync(path, "x".repeat(5_000));
      }
    };
    spoil(`${state}/deno_dir`);
  },
};
export function handler(event: { way: string; elsewhere: string }) {
  if (Deno.lstatSync(`${state}/deno_dir`).isSymlink) throw new Error("a link");
  if (Deno.lstatSync(private_).isSymlink) throw new Error("a link");
  ways[event.way]();
  Deno.writeTextFileSync(`${Deno.makeTempDirSync({ dir: event.elsewhere })}/x`, "x");
  return event.way;
}
"""
WAYS = [
    line.split('"')[1] for line in SPOILS.splitlines() if line.startswith('  "')
]  # fmt: skip
# Ways that spoil the same part follow each other in one runtime.
PARTS = ("entry", "lock", "spare", "around", "cache")


def part_of(way: str) -> str:
    """Return the part of the folder that a way spoils, ``folder`` for all of it."""
    part = way.partition("-")[0]
    return part if part in PARTS else "folder"


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("ways", "warm"),
    [
        pytest.param(
            ["entry-truncated", "closed", "link", "cache-spoilt"], "off", id="warm-off"
        ),
        *(
            pytest.param(
                [way for way in WAYS if part_of(way) == part], "ready", id=part
            )
            for part in ("folder", *PARTS)
        ),
    ],
)
async def test_the_state_folder_heals_from_anything(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    tmp_path: Path,
    ways: list[str],
    warm: str,
) -> None:
    environ = {"LAMBDA_DENO_PERMISSIONS": "all", "LAMBDA_DENO_WARM": warm}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    async def spoil(way: str, before: str) -> None:
        event = json.dumps({"way": way, "elsewhere": str(elsewhere)}).encode()
        api.deliver(event)
        answer = await api.answer()
        assert answer.call == "response", (way, before, answer.body)
        assert answer.json() == way, before
        await api.wait_for_next()

    runtime = make_runtime({"function.ts": SPOILS}, DENO_DIR=None, **environ)
    async with runtime:
        await api.wait_for_next()
        for _ in range(2):
            await spoil("nothing", before="")
        for how in ways:
            for event in (how, "nothing", how, "nothing"):
                await spoil(event, before=how)
            assert runtime.is_running
            moved = [path for path in runtime.temp_root.iterdir() if path.suffix]
            for path in moved:  # it is the handler's now: the runtime cannot know it
                assert how == "moved"
                await make_gone(path)


def test_every_way_is_tried() -> None:
    assert len(WAYS) == 37
    assert {part_of(way) for way in WAYS} == {"folder", *PARTS}


async def make_gone(path: Path) -> None:
    from lambda_deno_spawn.processes.state import remove_tree

    remove_tree(str(path))


async def test_a_process_that_waits_has_a_folder_whatever_the_last_event_removed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """In the background the next process is there before the last one has ended."""
    source = """
const own = Deno.env.get("TMPDIR")!;
const state = own.slice(0, own.lastIndexOf("/"));
export async function handler(event: { removes: boolean }, context: any) {
  if (event.removes) {
    for (const { name } of Deno.readDirSync(state)) {
      const isPrivate = /^[0-9a-f]{16}$/.test(name);
      if (isPrivate) Deno.removeSync(`${state}/${name}`, { recursive: true });
    }
    return "removed";
  }
  Deno.writeTextFileSync(`${own}/file`, "x");
  return Deno.readTextFileSync(`${own}/file`);
}
"""
    environ = {"LAMBDA_DENO_PERMISSIONS": "all", "LAMBDA_DENO_WARM": "background"}
    async with make_runtime({"function.ts": source}, **environ):
        for _ in range(4):
            assert (await api.invoke({"removes": True})).json() == "removed"
            assert (await api.invoke({"removes": False})).json() == "x"
        await api.wait_for_next()
